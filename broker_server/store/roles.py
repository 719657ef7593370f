"""A folder with a file of signed metadata for each role; written whole or not at all, by one process at a time."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from broker_server.store.engine import translated
from broker_server.store.lock import locked
from edge_protocol.errors import NotReadyError, StoreError
from edge_protocol.files import write_atomic

ONLINE = ("snapshot", "timestamp")
TOP_LEVEL = ("root", "targets", *ONLINE)
HASHES = ["sha256"]
T = TypeVar("T", Root, Timestamp, Snapshot, Targets)


class RoleFolder:
    """Files by role; ``<version>.root`` for roots.

    Args:
        path: made when the first file is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def root_version(self) -> int:
        """Version of the newest root, 0 when there is none."""
        return max((int(file.name.split(".")[0]) for file in self.path.glob("[1-9]*.root.json")), default=0)

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.path / f"{name}.json").exists()

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            StoreError: it cannot be read.
        """
        with translated(str(self.path / f"{name}.json")):
            return (self.path / f"{name}.json").read_bytes()

    def metadata(self, name: str) -> Metadata[Any]:
        """A file with its signatures.

        Raises:
            StoreError: it cannot be read, or is damaged.
        """
        try:
            return Metadata.from_bytes(self.read(name))
        except DeserializationError as error:
            raise StoreError(f"{self.path / name}.json is damaged: {error.__cause__}; bring back a copy") from error

    def load(self, kind: type[T], name: str) -> T:
        """What a file signs.

        Raises:
            StoreError: it cannot be read, is damaged, or of another kind.
        """
        signed = self.metadata(name).signed
        if not isinstance(signed, kind):
            raise StoreError(f"{self.path / name}.json holds {signed.type!r} metadata; bring back a copy")
        return signed

    def root(self) -> Root:
        """The newest root.

        Raises:
            NotReadyError: none has been signed.
            StoreError: it cannot be read, or is damaged.
        """
        if not self.root_version:
            raise NotReadyError(f"{self.path}: no root has been signed; run: roadcast keys init")
        return self.load(Root, f"{self.root_version}.root")

    def delegator(self, role: str) -> Root | Targets:
        """What says by which keys a role is signed; raises like `root` and `load`."""
        return self.root() if role in TOP_LEVEL else self.load(Targets, "targets")

    def verified(self, role: str) -> bool:
        """Whether a role is signed by the keys that it has today; raises like `delegator` and `metadata`."""
        metadata = self.metadata(role)
        try:
            self.delegator(role).verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        except UnsignedMetadataError:
            return False
        return True

    def described(self, name: str) -> MetaFile:
        """Version, length and hash of a file, as other metadata list it.

        Raises:
            StoreError: it cannot be read, or is damaged.
        """
        return MetaFile.from_data(self.metadata(name).signed.version, self.read(name), HASHES)

    def write(self, name: str, data: bytes) -> None:
        """Put a file in place.

        Raises:
            StoreError: the disk refused; the old file is as it was.
        """
        write_atomic(self.path / f"{name}.json", data)

    def lock(self) -> AbstractContextManager[None]:
        """Let one process at a time sign; a killed one lets go."""
        return locked(self.path)
