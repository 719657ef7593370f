"""Support bundles: what is masked, what is listed, and how they are written."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_client.support_bundle import MASK, redacted, state_files, write_bundle
from edge_protocol.errors import StoreError

WORD = st.text("abcdefghijklmnopqrstuvwxyzABCDEF0123456789!#$%&*+-.", min_size=8, max_size=40)


@given(secret=WORD, user=st.text("abcdef", max_size=5))
def test_a_secret_does_not_survive(secret: str, user: str) -> None:
    """In an address, under a telling name in YAML, JSON or a variable, in a header, or as a key."""
    told = (
        f"rtsp://{user}:{secret}@camera/stream",
        f"password: {secret}",
        f"  mqtt_password: '{secret}'",
        f'{{"api_key": "{secret}", "host": "h"}}',
        f"ROADCAST_SSH_PASSWORD={secret}",
        f"enrolment token = {secret}",
        f"-----BEGIN EC PRIVATE KEY-----\n{secret}\n-----END EC PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{secret}\n(the rest was cut off)",
    )
    for text in told:
        assert secret not in redacted(text), text
        assert MASK in redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "uri: rtsp://10.0.0.1/x?user=admin&pwd=hunter2",
        "uri: rtsp://admin:hunter2/ss@10.0.0.1/x",
        "uri: rtsp://admin:p@hunter2@10.0.0.1/x",
        "GET https://blobs.example/a?se=2026&sig=hunter2 HTTP/1.1",
        "roadcast client enrol --token hunter2 --ca ca.pem",
        "roadcast client enrol rct1.eyJhunter2.abc",
        "password: 'two words hunter2'",
        'password = "two \\"words\\" hunter2"',
        "password: two words hunter2",
        '{"auth": "hunter2", "host": "h"}',
        "Authorization: hunter2",
        "psk=hunter2",
        "token: my_file_hunter2",
    ],
)
def test_a_secret_of_any_form_is_masked(text: str) -> None:
    """Slashes and signs in a password, queries, command lines, quoted and unquoted words."""
    assert "hunter2" not in redacted(text)
    assert MASK in redacted(text)


def test_what_is_no_secret_stays() -> None:
    """A file of a password, an address without credentials, and words of a log."""
    for text in ("password_file: /etc/roadcast/password", "rtsp://camera/stream", "token bucket full; key: 7"):
        assert redacted(text) == text


def test_the_state_directory_is_listed_not_read(tmp_path: Path) -> None:
    """Names, sizes and dates by path; a link is not followed; a missing folder is empty."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "ab").write_bytes(bytes(7))
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert [(file.path, file.bytes) for file in state_files(tmp_path)] == [("blobs/ab", 7)]
    assert state_files(tmp_path / "none") == ()


def test_a_bundle_is_for_its_owner_and_overwrites_nothing(tmp_path: Path) -> None:
    """Mode 0600, texts redacted; a file that is there, or a folder that is not, is refused."""
    path = tmp_path / "bundle.tar.gz"
    size = write_bundle(path, {"a.txt": "password: hunter2", "b.txt": "ok"}, 0.0)
    assert (path.stat().st_size, path.stat().st_mode & 0o777) == (size, 0o600)
    with tarfile.open(path) as archive:
        assert archive.getnames() == [f"roadcast-support-19700101T000000Z/{name}" for name in ("a.txt", "b.txt")]
        text = archive.extractfile("roadcast-support-19700101T000000Z/a.txt")
        assert text is not None
        assert text.read() == b"password: ***"
    with pytest.raises(StoreError, match="is there already"):
        write_bundle(path, {}, 0.0)
    with pytest.raises(StoreError, match="cannot be written"):
        write_bundle(tmp_path / "none" / "bundle", {}, 0.0)
