"""A folder of blobs named by their hash, written whole or not at all, read by chunk. Owns no list of who needs what."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from broker_server.store.engine import translated
from edge_protocol.blobs import CHUNK_BYTES, BlobRef, cut
from edge_protocol.errors import DigestError, StoreError
from edge_protocol.files import write_atomic


class BlobFolder:
    """Content-addressed files under one folder.

    Raises:
        StoreError: the folder cannot be made.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        with translated(str(root)):
            root.mkdir(parents=True, exist_ok=True)

    def put(self, data: bytes, chunk_bytes: int = CHUNK_BYTES) -> BlobRef:
        """Keep bytes, safe against a power cut, and name them; in place of those that were damaged.

        Raises:
            StoreError: the disk refused; nothing was kept.
        """
        ref, _ = cut(data, chunk_bytes)
        try:
            self.read(ref)
        except (StoreError, DigestError):
            write_atomic(self.root / ref.sha256, data)
        return ref

    def read(self, ref: BlobRef) -> bytes:
        """Return the whole blob.

        Raises:
            StoreError: it is not there.
            DigestError: it is damaged.
        """
        with translated(f"blob {ref.sha256[:12]} in {self.root}"):
            data = (self.root / ref.sha256).read_bytes()
        if sha256(data).hexdigest() != ref.sha256:
            raise DigestError(f"blob {ref.sha256[:12]} in {self.root} is damaged; make or push its release again")
        return data

    def chunk(self, ref: BlobRef, index: int) -> bytes:
        """Return one chunk, checked against its hash.

        Raises:
            StoreError: the blob is not there.
            DigestError: no such chunk, or it is damaged.
        """
        with translated(f"blob {ref.sha256[:12]} in {self.root}"), (self.root / ref.sha256).open("rb") as file:
            file.seek(index * ref.chunk_bytes)
            data = file.read(ref.chunk_bytes)
        ref.check_chunk(index, data)
        return data
