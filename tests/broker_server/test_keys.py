"""The release key's file: made once, private, and checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker_server.keys import release_key
from edge_protocol.errors import ConfigError


def test_a_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    """Mode 0600 from the first byte on, and the same key ever after."""
    path = tmp_path / "keys" / "release.key"
    key = release_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert (len(key), release_key(path), bytes.fromhex(path.read_text())) == (32, key, key)


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [("00" * 32, 0o640, "chmod 600"), ("zz" * 32, 0o600, "hex"), ("00" * 31, 0o600, "31 bytes")],
)
def test_a_key_that_cannot_be_right_is_refused(tmp_path: Path, text: str, mode: int, message: str) -> None:
    """Open to others, not hexadecimal, or of another length."""
    path = tmp_path / "release.key"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=message):
        release_key(path)


def test_a_key_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A folder in the way is a ConfigError."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"release\.key"):
        release_key(tmp_path / "file" / "release.key")
