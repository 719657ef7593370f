"""Writing that a power cut cannot tear: the few steps that everything durable is made of; owns no file's meaning.

`Disk` is a seam: the power-cut suite records these steps and replays every prefix of them.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from edge_protocol import files
from edge_protocol.errors import StoreError

_BLOCK = 1 << 20


class Disk:
    """The disk of a device. Every method but `write_atomic` is one step, and raises `OSError` when it is refused."""

    def make_folder(self, path: Path) -> None:
        """Make a folder and those above it; each is in its parent for good, whatever is put into it later."""
        if not path.is_dir():
            self.make_folder(path.parent)
            self._mkdir(path)
            self.sync_folder(path.parent)

    def open(self, path: Path) -> BinaryIO:
        """Open a file to write anywhere in it, unbuffered; made when it is not there."""
        return path.open("r+b" if path.exists() else "w+b", buffering=0)

    def write(self, file: BinaryIO, data: bytes, at: int) -> None:
        """Write all of `data` at an offset; not durable yet."""
        rest = memoryview(data)
        while rest:
            written = os.pwrite(file.fileno(), rest, at)
            at, rest = at + written, rest[written:]

    def truncate(self, file: BinaryIO, size: int) -> None:
        """Make a file so many bytes long; not durable yet."""
        os.ftruncate(file.fileno(), size)

    def sync(self, file: BinaryIO) -> None:
        """Make what was written to a file durable."""
        os.fsync(file.fileno())

    def rename(self, path: Path, to: Path) -> None:
        """Give a file another name in its folder; not durable yet."""
        path.replace(to)

    def sync_folder(self, folder: Path) -> None:
        """Make names given and taken in a folder durable."""
        files.sync_folder(folder)

    def unlink(self, path: Path) -> None:
        """Remove a file, if it is there; not durable yet."""
        path.unlink(missing_ok=True)

    def remove_tree(self, folder: Path) -> None:
        """Remove a folder and all below, as far as the disk lets go of it; not durable yet."""
        shutil.rmtree(folder, ignore_errors=True)

    def write_atomic(self, path: Path, data: bytes) -> None:
        """Replace a file as a whole: write beside it, fsync, rename, fsync the folder.

        Raises:
            StoreError: the disk refused; the old file is untouched and nothing is left beside it.
        """
        beside = path.with_name(path.name + ".tmp")
        try:
            self.make_folder(path.parent)
            with self.open(beside) as file:
                self.truncate(file, 0)
                self.write(file, data, 0)
                self.sync(file)
            self.rename(beside, path)
            self.sync_folder(path.parent)
        except OSError as error:
            with suppress(OSError):
                self.unlink(beside)
            raise StoreError(
                f"cannot write {path}: {error.strerror or error}; free some space or check the disk"
            ) from error

    def _mkdir(self, path: Path) -> None:
        path.mkdir(exist_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file as a whole.

    Raises:
        StoreError: the disk refused; the old file is untouched and nothing is left beside it.
    """
    Disk().write_atomic(path, data)


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
