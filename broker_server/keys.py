"""The release key as a file; owns its form and its permissions, not what is signed with it."""

from __future__ import annotations

import hmac
import os
from pathlib import Path

from edge_protocol.errors import ConfigError
from edge_protocol.signing import KEY_BYTES, generate_key

_OTHERS = 0o077


def release_key(path: Path) -> bytes:
    """Read the Ed25519 private key, 32 bytes; make it, readable by its owner only, when there is none.

    Raises:
        ConfigError: the file cannot be read or made, is open to others, or is not 64 hex digits.
    """
    try:
        return _read(path) if path.exists() else _make(path)
    except OSError as error:
        raise ConfigError(f"release key {path}: {error}") from error


def salt_of(key: bytes) -> bytes:
    """Derive the secret that says where anchors hide among the proxies, 32 bytes: the same after every restart."""
    return hmac.digest(key, b"roadcast: order of the proxies", "sha256")


def _make(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    key = generate_key()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(key.hex() + "\n")
        file.flush()
        os.fsync(descriptor)
    return key


def _read(path: Path) -> bytes:
    if path.stat().st_mode & _OTHERS:
        raise ConfigError(f"release key {path} can be read by others; run: chmod 600 {path}")
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except ValueError as error:
        raise ConfigError(f"release key {path} is not {2 * KEY_BYTES} hex digits") from error
    if len(key) != KEY_BYTES:
        raise ConfigError(f"release key {path} holds {len(key)} bytes, not {KEY_BYTES}")
    return key
