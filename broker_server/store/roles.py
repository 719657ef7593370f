"""A folder with a file of signed metadata for each role; written whole or not at all, by one process at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from broker_server.store.engine import translated
from edge_protocol.errors import StoreError
from edge_protocol.files import write_atomic

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

    def write(self, name: str, data: bytes) -> None:
        """Put a file in place.

        Raises:
            StoreError: the disk refused; the old file is as it was.
        """
        write_atomic(self.path / f"{name}.json", data)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Let one process at a time sign; a killed one lets go."""
        with translated(str(self.path)):
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / ".lock").open("w")
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
