"""What the centre remembers, as plain values: devices, rounds and releases; owns no disk and no rule about them."""

from __future__ import annotations

import msgspec

from broker_server.judge import JudgeRules
from edge_protocol.blobs import BlobRef
from edge_protocol.ids import DeviceId, TaskId
from edge_protocol.messages import DeviceState, KnowledgeReport


class DeviceTask(msgspec.Struct, frozen=True, kw_only=True):
    """One task of one device.

    Attributes:
        release: counter of the release that the device has committed; 0 for none.
        deployment: last state it told of a deployment, in small letters; "" when it never did.
        reason: why that deployment was rejected, failed or rolled back.
    """

    task: TaskId
    label_space: str
    tier: str
    student: str
    release: int = 0
    deployment: str = ""
    reason: str = ""


class DeviceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A device as the registry knows it.

    Attributes:
        state: value of its `DeviceStatus`.
        boot_id: 8 bytes of the boot that sent the last birth.
        seen_s: when it was last heard, seconds since 1970 by the server's clock.
    """

    device: DeviceId
    state: str
    boot_id: bytes
    board: str
    software: str
    runtime: str
    cores: int
    memory_bytes: int
    tasks: tuple[DeviceTask, ...]
    seen_s: float


class RoundRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A round and what came of it.

    Attributes:
        number: counts from 1 per task; 0 is the first release, made without reports.
        state: value of its `RoundState`.
        release: counter of the release that reports start from.
        proxy: the proxy set to answer; None in round 0.
        samples: votes that a report must hold.
        opened_s, deadline_s, closed_s: seconds since 1970; 0 when not yet.
        reason: why it was abandoned, or what the judge said.
        refused: device → why its report does not count.
        manifest: blob of its `RoundManifest`; None until it was distilled.
        rules: that its candidate was judged by; None until then.
    """

    task: TaskId
    number: int
    state: str
    release: int
    proxy: BlobRef | None
    samples: int
    opened_s: float
    deadline_s: float = 0.0
    closed_s: float = 0.0
    reason: str = ""
    refused: dict[str, str] = {}
    manifest: BlobRef | None = None
    rules: JudgeRules | None = None


class ReleaseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A release that is on disk and may be published.

    Attributes:
        round: the round that made it; None when an operator pushed it.
        signed: MessagePack of the `SignedManifest`.
        on_broker: whether its chunks may be retained by the broker.
    """

    task: TaskId
    counter: int
    round: int | None
    created_s: float
    metrics: dict[str, float]
    notes: str
    signed: bytes
    on_broker: bool = True


class SeenMessage(msgspec.Struct, frozen=True, array_like=True):
    """The answer that a durable message got; sent again when the message comes again.

    Attributes:
        message_id: 16 bytes, hash of sender and id.
    """

    message_id: bytes
    accepted: bool
    reason: str
    at_s: float


class StoredReport(msgspec.Struct, frozen=True, kw_only=True):
    """An accepted report."""

    round: int
    device: DeviceId
    message_id: bytes
    received_s: float
    report: KnowledgeReport


class StoredState(msgspec.Struct, frozen=True, kw_only=True):
    """The newest state that a device told of a task."""

    device: DeviceId
    at_s: float
    state: DeviceState
