"""What the coordinator wants done; owns no doing.

The shell carries out every ``Save…`` of a batch, in one transaction, before anything else of it. That order is the
promise behind an `Ack`: what was acknowledged is on disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from broker_server.audit import AuditEntry
from broker_server.records import (
    DeviceRecord,
    OrderRecord,
    ProgressRecord,
    RolloutRecord,
    RoundRecord,
    SeenMessage,
    StoredReport,
    StoredState,
)
from edge_protocol.effects import Drop, Send
from edge_protocol.ids import DeviceId, TaskId
from edge_protocol.messages import Call, IntervalResult, Measured, Telemetry


@dataclass(frozen=True, slots=True)
class SaveDevice:
    """Write a device down."""

    record: DeviceRecord


@dataclass(frozen=True, slots=True)
class SaveState:
    """Write down the newest state of a device's task."""

    stored: StoredState


@dataclass(frozen=True, slots=True)
class SaveTelemetry:
    """Write down the newest readings of a board."""

    device: DeviceId
    at_s: float
    telemetry: Telemetry


@dataclass(frozen=True, slots=True)
class SaveMeasured:
    """Write down how fast a device's student answers; the newest replaces the one before."""

    device: DeviceId
    at_s: float
    measured: Measured


@dataclass(frozen=True, slots=True)
class SaveRound:
    """Write a round down."""

    record: RoundRecord


@dataclass(frozen=True, slots=True)
class SaveReport:
    """Write an accepted report down."""

    stored: StoredReport


@dataclass(frozen=True, slots=True)
class ForgetReports:
    """Strike out every report of a device that was accepted before."""

    device: DeviceId


@dataclass(frozen=True, slots=True)
class SaveResult:
    """Write an interval's result down."""

    device: DeviceId
    message_id: bytes
    received_s: float
    result: IntervalResult


@dataclass(frozen=True, slots=True)
class SaveSeen:
    """Write down how a message was answered."""

    seen: SeenMessage


@dataclass(frozen=True, slots=True)
class SaveRollout:
    """Write a rollout down."""

    record: RolloutRecord


@dataclass(frozen=True, slots=True)
class SaveProgress:
    """Write down how a device of a rollout fares."""

    record: ProgressRecord


@dataclass(frozen=True, slots=True)
class SaveAudit:
    """Append to the audit log, after whatever is its newest entry by then."""

    entry: AuditEntry


@dataclass(frozen=True, slots=True)
class SaveOrder:
    """Write down what came of an operator's order."""

    record: OrderRecord


@dataclass(frozen=True, slots=True)
class Distil:
    """Start the distiller on the reports of a round; the answer is `Distilled` or `JobFailed`."""

    task: TaskId
    round: int
    release: int


@dataclass(frozen=True, slots=True)
class CancelDistil:
    """Stop the distiller: its candidate is no longer wanted."""

    task: TaskId
    round: int


@dataclass(frozen=True, slots=True)
class MakeRelease:
    """Turn a round's candidate into a signed release; the answer is `ReleaseStored` or `JobFailed`."""

    task: TaskId
    round: int
    metrics: dict[str, float]


NO_ROUND = -1
"""Round of work that no round asked for."""


@dataclass(frozen=True, slots=True)
class ReleaseAgain:
    """Release the files of an earlier release under a new counter; the answer is `ReleaseStored` or `JobFailed`."""

    task: TaskId
    counter: int
    notes: str
    round: int = NO_ROUND


@dataclass(frozen=True, slots=True)
class OfferRelease:
    """Have the broker keep this release for these devices, and its chunks."""

    task: TaskId
    counter: int
    devices: tuple[DeviceId, ...]


@dataclass(frozen=True, slots=True)
class WithdrawRelease:
    """Clear the release topics of these devices: the fleet's is what they are to have."""

    task: TaskId
    devices: tuple[DeviceId, ...]


@dataclass(frozen=True, slots=True)
class PublishRelease:
    """Have the broker keep this release and its chunks."""

    task: TaskId
    counter: int


@dataclass(frozen=True, slots=True)
class PublishRound:
    """Have the broker keep this round call."""

    call: Call


@dataclass(frozen=True, slots=True)
class Republish:
    """Publish chunks again that the broker did not deliver, at the word of a device."""

    device: DeviceId
    sha256: str
    indices: tuple[int, ...]


Row: TypeAlias = (
    SaveDevice
    | SaveState
    | SaveTelemetry
    | SaveMeasured
    | SaveRound
    | SaveReport
    | SaveResult
    | SaveSeen
    | SaveRollout
    | SaveProgress
    | SaveAudit
    | SaveOrder
)
Save: TypeAlias = Row | ForgetReports
Work: TypeAlias = Distil | CancelDistil | MakeRelease | ReleaseAgain
Publish: TypeAlias = Send | PublishRelease | PublishRound | Republish | OfferRelease | WithdrawRelease
Effect: TypeAlias = Save | Work | Publish | Drop
