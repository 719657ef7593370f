"""What the shell tells the coordinator besides messages: outcomes of work it was asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from broker_server.distil_job import DistilResult
from broker_server.records import OrderRecord, ReleaseRecord, RolloutRecord
from edge_protocol.blobs import BlobRef
from edge_protocol.ids import TaskId


@dataclass(frozen=True, slots=True)
class Distilled:
    """The distiller made a candidate; `manifest` names the blob that says what from."""

    task: TaskId
    round: int
    result: DistilResult
    manifest: BlobRef | None = None


@dataclass(frozen=True, slots=True)
class JobFailed:
    """The distiller, or the making of the release, failed."""

    task: TaskId
    round: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReleaseStored:
    """A release is in the store: made from a round, or pushed by an operator.

    Attributes:
        draft: its rollout, when it is not for the whole fleet at once.
    """

    release: ReleaseRecord
    draft: RolloutRecord | None = None


@dataclass(frozen=True, slots=True)
class Ordered:
    """An operator wants something done with a rollout."""

    order: OrderRecord


Outcome: TypeAlias = Distilled | JobFailed | ReleaseStored | Ordered
