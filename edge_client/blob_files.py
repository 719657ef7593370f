"""The blobs on a device's disk; owns ``blobs/``, and knows of no link.

A blob is staged in ``blobs/<sha256>/part`` and becomes ``blobs/<sha256>/data`` when its whole hash is right. Which
chunks of a part are good is told by their hashes alone, so a process killed at any byte goes on where it was.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from edge_client.disk import Disk, file_sha256
from edge_protocol.blobs import BlobRef
from edge_protocol.errors import DigestError, StoreError


class BlobFiles:
    """Whole and staged blobs below one folder.

    Args:
        folder: ``blobs/`` of the state directory.
        disk: how to write.
        shelf: a folder of blobs that is only read: what the board came with.
    """

    def __init__(self, folder: Path, disk: Disk | None = None, shelf: Path | None = None) -> None:
        self.folder, self._disk, self._shelf = folder, disk or Disk(), shelf

    def path(self, sha256: str) -> Path:
        """Where a blob is, or will be."""
        own = self._own(sha256)
        if self._shelf is not None and not own.exists() and (shelved := self._shelf / sha256 / "data").exists():
            return shelved
        return own

    def holds(self, sha256: str) -> bool:
        """Whether a blob is there, whole."""
        return file_sha256(self.path(sha256)) == sha256

    def open(self, ref: BlobRef) -> tuple[BinaryIO, set[int]]:
        """Open the part of a blob; return it with the chunks that it holds whole.

        Raises:
            StoreError: the disk refused.
        """
        part = self._part(ref)
        try:
            self._disk.make_folder(part.parent)
            file = self._disk.open(part)
            try:
                return file, _intact(file, ref)
            except OSError:
                file.close()
                raise
        except OSError as error:
            raise StoreError(f"cannot write {part}: {error.strerror or error}") from error

    def write(self, file: BinaryIO, ref: BlobRef, index: int, payload: bytes) -> None:
        """Write a checked chunk; it is not fsynced: after a power cut its hash tells whether it is good.

        Raises:
            StoreError: the disk refused.
        """
        try:
            self._disk.write(file, payload, index * ref.chunk_bytes)
        except OSError as error:
            message = f"cannot store blob {ref.sha256[:12]}: {error.strerror or error}; free some space"
            raise StoreError(message) from error

    def finish(self, file: BinaryIO, ref: BlobRef) -> None:
        """Check a part as a whole, make it durable and give it its name.

        Raises:
            DigestError: its chunks are right and the whole is not.
            StoreError: the disk refused.
        """
        part = self._part(ref)
        try:
            self._disk.truncate(file, ref.size)
            self._disk.sync(file)
            if file_sha256(part) != ref.sha256:
                raise DigestError(f"blob {ref.sha256[:12]} does not match its hash although its chunks do")
            self._disk.rename(part, self._own(ref.sha256))
            self._disk.sync_folder(part.parent)
            self._disk.sync_folder(self.folder)  # an agent killed between making the folder and syncing it left that
        except OSError as error:
            raise StoreError(f"cannot store blob {ref.sha256[:12]}: {error.strerror or error}") from error

    def put(self, sha256: str, data: bytes) -> None:
        """Keep a blob that was made here; the caller has checked its hash.

        Raises:
            StoreError: the disk refused.
        """
        self._disk.write_atomic(self._own(sha256), data)

    def drop(self, sha256: str) -> None:
        """Delete a blob, or what was staged of it."""
        self._disk.remove_tree(self.folder / sha256)

    def collect(self, keep: set[str]) -> list[str]:
        """Delete every blob that is not in `keep`; return their hashes."""
        gone = [entry.name for entry in self.folder.glob("*") if entry.name not in keep]
        for name in gone:
            self.drop(name)
        return gone

    def _own(self, sha256: str) -> Path:
        return self.folder / sha256 / "data"

    def _part(self, ref: BlobRef) -> Path:
        return self.folder / ref.sha256 / "part"


def _intact(file: BinaryIO, ref: BlobRef) -> set[int]:
    """Chunks of a part that were written whole."""
    have = set()
    for index in range(ref.chunks):
        size = min(ref.chunk_bytes, ref.size - index * ref.chunk_bytes)
        try:
            ref.check_chunk(index, os.pread(file.fileno(), size, index * ref.chunk_bytes))
        except DigestError:
            continue
        have.add(index)
    return have
