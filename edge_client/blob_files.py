"""The blobs on a device's disk; owns ``blobs/``, and knows of no link.

A blob is staged in ``blobs/<sha256>/part`` and becomes ``blobs/<sha256>/data`` when its whole hash is right. Which
chunks of a part are good is told by their hashes alone, so a process killed at any byte goes on where it was. The whole
hash goes along with the chunks, in order: only those that came out of turn are read again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from edge_client.disk import Disk, file_sha256
from edge_protocol.blobs import BlobRef
from edge_protocol.errors import DigestError, StoreError

if TYPE_CHECKING:
    from hashlib import _Hash


@dataclass(slots=True)
class Part:
    """A blob under way.

    Attributes:
        ref: the blob.
        file: open to write.
        have: chunks that are in the file, whole.
        hashed: chunks from the first on that `digest` is of.
        digest: SHA-256 so far.
    """

    ref: BlobRef
    file: BinaryIO
    have: set[int] = field(default_factory=set)
    hashed: int = 0
    digest: _Hash = field(default_factory=sha256)

    def read(self, index: int) -> bytes:
        """Read a chunk, as much of it as there is."""
        at = index * self.ref.chunk_bytes
        return os.pread(self.file.fileno(), min(self.ref.chunk_bytes, self.ref.size - at), at)

    def carry_on(self, index: int, chunk: bytes) -> None:
        """A chunk is in the file: hash it when it is its turn, and those behind it that were there before."""
        self.have.add(index)
        while index == self.hashed:
            self.digest.update(chunk)
            self.hashed = index = index + 1
            if index not in self.have:
                break
            chunk = self.read(index)


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

    def open(self, ref: BlobRef) -> Part:
        """Open the part of a blob, with the chunks that it holds whole.

        Raises:
            StoreError: the disk refused.
        """
        path = self._part(ref)
        try:
            self._disk.make_folder(path.parent)
            part = Part(ref, self._disk.open(path))
            try:
                _find_intact(part)
            except OSError:
                part.file.close()
                raise
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
        return part

    def write(self, part: Part, index: int, payload: bytes) -> None:
        """Write a checked chunk; it is not fsynced: after a power cut its hash tells whether it is good.

        Raises:
            StoreError: the disk refused.
        """
        try:
            self._disk.write(part.file, payload, index * part.ref.chunk_bytes)
            part.carry_on(index, payload)
        except OSError as error:
            message = f"cannot store blob {part.ref.sha256[:12]}: {error.strerror or error}; free some space"
            raise StoreError(message) from error

    def finish(self, part: Part) -> None:
        """Check a part as a whole, make it durable and give it its name.

        Raises:
            DigestError: its chunks are right and the whole is not.
            StoreError: the disk refused.
        """
        ref, path = part.ref, self._part(part.ref)
        if part.digest.hexdigest() != ref.sha256:
            raise DigestError(f"blob {ref.sha256[:12]} does not match its hash although its chunks do")
        try:
            self._disk.truncate(part.file, ref.size)
            self._disk.sync(part.file)
            self._disk.rename(path, self._own(ref.sha256))
            self._disk.sync_folder(path.parent)
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


def _find_intact(part: Part) -> None:
    """Find the chunks of a part that were written whole."""
    there = os.fstat(part.file.fileno()).st_size
    for index in range(min(part.ref.chunks, -(-there // part.ref.chunk_bytes))):
        chunk = part.read(index)
        try:
            part.ref.check_chunk(index, chunk)
        except DigestError:
            continue
        part.carry_on(index, chunk)
