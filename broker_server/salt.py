"""The secret that says where anchors hide among the proxies, as a file; owns its form and its permissions."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from edge_protocol.errors import ConfigError

SALT_BYTES = 32
_OTHERS = 0o077


def read_salt(path: Path) -> bytes:
    """Read the secret, 32 bytes; make it, readable by its owner only, when there is none: the same after every restart.

    Raises:
        ConfigError: the file cannot be read or made, is open to others, or is not 64 hex digits.
    """
    try:
        return _read(path) if path.exists() else _make(path)
    except OSError as error:
        raise ConfigError(f"salt {path}: {error}") from error


def _make(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    salt = secrets.token_bytes(SALT_BYTES)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(salt.hex() + "\n")
        file.flush()
        os.fsync(descriptor)
    return salt


def _read(path: Path) -> bytes:
    if path.stat().st_mode & _OTHERS:
        raise ConfigError(f"salt {path} can be read by others; run: chmod 600 {path}")
    try:
        salt = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except ValueError as error:
        raise ConfigError(f"salt {path} is not {2 * SALT_BYTES} hex digits") from error
    if len(salt) != SALT_BYTES:
        raise ConfigError(f"salt {path} holds {len(salt)} bytes, not {SALT_BYTES}")
    return salt
