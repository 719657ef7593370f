"""Writing a file as a whole or not at all, with a mode; owns no file's meaning."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import NamedTemporaryFile

from edge_protocol.errors import StoreError


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file so that a crash leaves the old one or the new one, never half of one.

    Raises:
        StoreError: the disk refused; `path` is as it was.
    """
    try:
        temporary = _write_beside(path, data, mode)
        rename(temporary, path)
    except OSError as error:
        raise StoreError(f"{path}: {error}; free space or repair the disk, then try again") from error


def rename(path: Path, to: Path) -> None:
    """Give a file another name in its folder, durably; what had that name is gone."""
    path.replace(to)
    sync_folder(to.parent)


def sync_folder(folder: Path) -> None:
    """Have the disk remember names made, moved or removed in a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_beside(path: Path, data: bytes, mode: int) -> Path:
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:16]}-", delete=False) as file:
        temporary = Path(file.name)
        try:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            temporary.unlink()
            raise
    return temporary
