"""The salt's file: made once, private, and checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker_server.salt import read_salt
from edge_protocol.errors import ConfigError


def test_a_salt_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    """Mode 0600 from the first byte on, and the same salt ever after."""
    path = tmp_path / "state" / "proxies.salt"
    salt = read_salt(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert (len(salt), read_salt(path), bytes.fromhex(path.read_text())) == (32, salt, salt)


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [("00" * 32, 0o640, "chmod 600"), ("zz" * 32, 0o600, "hex"), ("00" * 31, 0o600, "31 bytes")],
)
def test_a_salt_that_cannot_be_right_is_refused(tmp_path: Path, text: str, mode: int, message: str) -> None:
    """Open to others, not hexadecimal, or of another length."""
    path = tmp_path / "proxies.salt"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=message):
        read_salt(path)


def test_a_salt_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A folder in the way is a ConfigError."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"proxies\.salt"):
        read_salt(tmp_path / "file" / "proxies.salt")
