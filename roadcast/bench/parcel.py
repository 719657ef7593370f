"""What goes to a target in ``bench run --ssh`` and comes back: a model with its job, a result or an error. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import TypeVar

import msgspec

from devices.latency.result import Result
from devices.latency.soak import Soak
from edge_protocol.errors import (
    ConfigError,
    DataError,
    DeploymentError,
    DeviceError,
    IncompatibleError,
    NotReadyError,
    RemoteProtocolError,
    RoadcastError,
    SourceError,
    StoreError,
    TransportError,
)
from roadcast.bench.job import Job

MARK = b"roadcast-bench-answer "
"""What a login shell says comes before it."""
LENGTH = 8
"""Bytes of the number that a parcel begins with: its own length, big-endian."""
PIECE = 1 << 16
_ERRORS = (
    *(ConfigError, DataError, DeploymentError, DeviceError, IncompatibleError, NotReadyError),
    *(SourceError, StoreError, TransportError),
)
T = TypeVar("T")


class Parcel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model and what is to be measured.

    Attributes:
        job: see there.
        name: of the folder, or of the ONNX file.
        files: the folder's files by name; of an ONNX file the only entry has its own name.
    """

    job: Job
    name: str
    files: dict[str, bytes]

    def __post_init__(self) -> None:
        for name in (self.name, *self.files):
            if PurePath(name).name != name or name in {"", ".", ".."} or not name.isprintable():
                raise RemoteProtocolError("malformed", f"a parcel with {name!r} in it would leave its folder")


class Answer(msgspec.Struct, frozen=True):
    """A result, or the name and text of the error."""

    result: Result | Soak | None
    error: str = ""
    reason: str = ""

    def unpack(self, host: str) -> Result | Soak:
        """The result.

        Raises:
            RoadcastError: what the target raised, as the same error if it is one of those that a run raises.
        """
        if self.result is not None:
            return self.result
        kinds = {kind.__name__: kind for kind in _ERRORS}
        raise kinds.get(self.error, RoadcastError)(f"{host}: {self.reason}")


def pack(parcel: Parcel) -> Iterator[bytes]:
    """Write a parcel in pieces."""
    body = msgspec.msgpack.encode(parcel)
    yield len(body).to_bytes(LENGTH, "big")
    yield from (body[at : at + PIECE] for at in range(0, len(body), PIECE))


def opened(body: bytes, kind: type[T]) -> T:
    """Read a parcel or an answer.

    Raises:
        RemoteProtocolError: it is none that this version knows.
    """
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise RemoteProtocolError(
            "malformed", f"the other side speaks another way: {error}; install the same version of roadcast on both"
        ) from error


def answered(said: bytes) -> Answer:
    """Find the answer in what a target said.

    Raises:
        RemoteProtocolError: there is none.
    """
    _, found, body = said.partition(MARK)
    if not found:
        raise RemoteProtocolError("malformed", "the target ended without an answer")
    return opened(body, Answer)
