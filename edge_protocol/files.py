"""Writing a file as a whole or not at all, with a mode; a folder for one process; owns no file's meaning."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from edge_protocol.errors import NotReadyError, StoreError


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


@contextmanager
def alone(folder: Path, who: str) -> Iterator[None]:
    """Keep a folder, made when it is not there, to one process; a killed one lets go. Takes no room on the disk.

    Args:
        folder: to be kept.
        who: the one that keeps it, for the message to the next.

    Raises:
        NotReadyError: another process keeps it.
        StoreError: the disk refused the folder, or knows no locks.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise StoreError(f"{folder}: {error}; free space or repair the disk, then try again") from error
    try:
        _lock(descriptor, folder, who)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path, who: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise NotReadyError(f"{folder}: another {who} runs on this folder; stop it first") from error
    except OSError as error:
        raise StoreError(f"{folder}: cannot be locked: {error}; use a disk that knows locks") from error


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
