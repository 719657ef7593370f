"""Writing that a power cut cannot tear; owns no file's meaning."""

from __future__ import annotations

import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from edge_protocol.errors import StoreError

_BLOCK = 1 << 20


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file as a whole: write beside it, fsync, rename, fsync the folder.

    Raises:
        StoreError: the disk refused; the old file is untouched and nothing is left beside it.
    """
    beside = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}; free some space or check the disk"
        ) from error


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file as 64 hex digits, "" when it cannot be read."""
    digest = sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError:
        return ""
    return digest.hexdigest()
