"""The one error tree of Roadcast; owns no handling, only names.

::

    RoadcastError
    ├── ProtocolError            a message is not what the contract says (carries `reason`)
    │   ├── LocalProtocolError   we built it
    │   └── RemoteProtocolError  the peer sent it
    ├── IllegalTransitionError   a state machine was fed an event its table does not hold
    ├── TransportError           the broker or the link (retryable)
    ├── ArtifactError            a file of a release
    │   ├── DigestError          bytes and hash differ
    │   ├── TrustError           signed metadata that cannot be trusted (carries `reason`)
    │   └── IncompatibleError    right bytes, wrong task, tier, template or shape
    ├── DeploymentError          a release that could not be installed here
    ├── ExportError              torch → ONNX
    │   └── ParityError          the exported file answers differently
    ├── DistillationError        the worker could not make a candidate
    ├── DeviceError              a part of the board
    │   └── SourceError          a camera, file or series that does not deliver
    ├── DataError                a pack or card that cannot be read
    ├── StoreError               a disk that refuses (full, read-only, corrupt)
    ├── ConfigError              a configuration that is wrong
    ├── NotReadyError            the environment lacks something
    └── CheckFailedError         a check ran, and its answer is no

A message says what happened, where, and what to do. Branches are by who is at fault.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """Exit codes of every `roadcast` command."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    CHECK_FAILED = 3
    NOT_READY = 4
    PARTIAL = 5
    TIMEOUT = 6
    TEMPORARY = 75
    CONFIG = 78


class RoadcastError(Exception):
    """Root of every error that Roadcast raises on purpose."""

    retryable: ClassVar[bool] = False
    exit_code: ClassVar[ExitCode] = ExitCode.UNEXPECTED


class ProtocolError(RoadcastError, ValueError):
    """A message breaks the wire contract.

    Attributes:
        reason: short slug under which the drop is counted, such as ``"oversized"`` or ``"wrong-fleet"``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class LocalProtocolError(ProtocolError):
    """We tried to build or send a message that breaks the contract: a bug on this side."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something that breaks the contract: drop it, count it, go on."""


class IllegalTransitionError(RoadcastError):
    """An event has no row in the state table; the state is unchanged."""


class TransportError(RoadcastError):
    """The broker or the link failed; trying again later may work."""

    retryable = True
    exit_code = ExitCode.TEMPORARY


class ArtifactError(RoadcastError):
    """A file of a release cannot be used."""

    exit_code = ExitCode.NOT_READY


class DigestError(ArtifactError):
    """Bytes do not match their hash; fetching them again may help."""

    retryable = True


class TrustError(ArtifactError):
    """Signed metadata, or a release that it does not list, is not trusted; what was trusted before still is.

    Attributes:
        reason: short slug under which the refusal is counted, such as ``"metadata-rollback"``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class IncompatibleError(ArtifactError):
    """A file is intact but meant for another task, tier, template or shape."""


class DeploymentError(RoadcastError):
    """A release could not be installed on this device; the running one is untouched."""


class ExportError(RoadcastError):
    """A model could not be exported."""


class ParityError(ExportError):
    """The exported file's answers differ from the model's by more than the tolerance."""

    exit_code = ExitCode.CHECK_FAILED


class DistillationError(RoadcastError):
    """The distiller could not make a candidate from the reports it was given."""


class DeviceError(RoadcastError):
    """A part of the board failed."""


class SourceError(DeviceError):
    """A camera, file or series does not deliver."""

    retryable = True
    exit_code = ExitCode.NOT_READY


class DataError(RoadcastError):
    """A data pack or its card is missing, truncated or of another shape."""

    exit_code = ExitCode.NOT_READY


class StoreError(RoadcastError):
    """The disk refused: full, read-only or corrupt."""

    retryable = True
    exit_code = ExitCode.NOT_READY


class ConfigError(RoadcastError):
    """A configuration value is wrong; the message names file, key and what is expected."""

    exit_code = ExitCode.CONFIG


class NotReadyError(RoadcastError):
    """The environment lacks something; the message says how to get it."""

    exit_code = ExitCode.NOT_READY


class CheckFailedError(RoadcastError):
    """A check ran to its end and its answer is no."""

    exit_code = ExitCode.CHECK_FAILED
