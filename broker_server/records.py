"""What the centre remembers, as plain values: devices, rounds, releases, rollouts; owns no disk and no rule."""

from __future__ import annotations

import msgspec

from broker_server.floor import Floor
from broker_server.judge import JudgeRules
from broker_server.rollout_plan import Plan
from edge_protocol.blobs import BlobRef
from edge_protocol.ids import DeviceId, TaskId
from edge_protocol.messages import DeviceState, FullReport


class DeviceTask(msgspec.Struct, frozen=True, kw_only=True):
    """One task of one device.

    Attributes:
        release: counter of the release that the device has committed; 0 for none.
        deployment: last state it told of a deployment, in small letters; "" when it never did.
        reason: why that deployment was rejected, failed or rolled back.
        weights: hash of the payload of that release that it runs; "" when it has not said.
    """

    task: TaskId
    label_space: str
    tier: str
    student: str
    release: int = 0
    deployment: str = ""
    reason: str = ""
    weights: str = ""


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
    tags: tuple[str, ...] = ()


class RoundRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A round and what came of it.

    Attributes:
        number: counts from 1 per task; 0 is the first release, made without reports.
        state: value of its `RoundState`.
        release: counter of the release that reports start from.
        proxy: the proxy set to answer; None in round 0, and in one that asks for class means.
        samples: votes that a report must hold.
        opened_s, deadline_s, closed_s: seconds since 1970; 0 when not yet.
        reason: why it was abandoned, or what the judge said.
        reports: accepted while it took reports; None while it does, and in records from before this was written down.
        refused: device → why its report does not count.
        manifest: blob of its `RoundManifest`; None until it was distilled.
        rules: that its candidate was judged by; None until then.
        floor: best accepted scores up to this round; the next round takes them over, and only the newest one has them.
        raised: the floor that its own release will make, until there is that release.
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
    reports: int | None = None
    refused: dict[str, str] = {}
    manifest: BlobRef | None = None
    rules: JudgeRules | None = None
    floor: Floor | None = None
    raised: Floor | None = None


class ReleaseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A release that is on disk and may be published.

    Attributes:
        round: the round that made it; None when an operator pushed it.
        manifest: its description, the bytes that are listed by signed metadata.
        on_broker: whether its chunks may be retained by the broker.
    """

    task: TaskId
    counter: int
    round: int | None
    created_s: float
    metrics: dict[str, float]
    notes: str
    manifest: bytes
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
    report: FullReport


class StoredState(msgspec.Struct, frozen=True, kw_only=True):
    """The newest state that a device told of a task."""

    device: DeviceId
    at_s: float
    state: DeviceState


class RolloutRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout and how far it has come.

    Attributes:
        counter: of the release.
        state: value of its `RolloutState`.
        by: who asked for it.
        starts: whether it starts by itself, as soon as no other rollout of the task is under way.
        logged: whether the audit log tells who made it.
        baseline: release that the fleet had before; 0 while it is a draft.
        wave: 0 for the canaries, then the number of the wave.
        began_s: when the wave was offered, 0 while it waits for the window or for devices; seconds since 1970.
        calm_s: when all of the wave had committed; 0 before.
        started_s, ended_s: 0 when not yet.
        reason: why it was paused or aborted.
        stranded: why devices may still run it although it was aborted; "" once the fleet has a newer one.
    """

    task: TaskId
    counter: int
    plan: Plan
    by: str
    state: str = "draft"
    starts: bool = False
    logged: bool = False
    baseline: int = 0
    wave: int = 0
    began_s: float = 0.0
    calm_s: float = 0.0
    started_s: float = 0.0
    ended_s: float = 0.0
    reason: str = ""
    stranded: str = ""

    def changed(self, **fields: object) -> RolloutRecord:
        """The same with some fields changed."""
        return msgspec.structs.replace(self, **fields)

    @property
    def whole_fleet(self) -> bool:
        """Whether it is for every device, so that the release becomes the fleet's in the end."""
        return not self.plan.to


class ProgressRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How one device of a rollout fares.

    Attributes:
        wave: in which it was offered the release.
        state: value of its `Fate`.
        since_s: when it came to that, seconds since 1970.
        reason: why it failed.
    """

    task: TaskId
    counter: int
    device: DeviceId
    wave: int
    state: str
    since_s: float
    reason: str = ""


class OrderRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator wants done with a rollout or a device; the server takes it from the database and answers there.

    Attributes:
        counter: of the rollout's release; 0 for a device.
        number: 0 until it is in the database.
        order: ``start``, ``pause``, ``resume``, ``abort`` or ``rollback``; for a device ``measure``, ``retire``,
            ``reinstate`` or ``tag``.
        plan: of a start.
        by: the operator.
        answer: None until the server has taken it; "" for done, else why not.
        device: that it is about; a rollout's is about none.
        seconds: how long it is to be measured.
        tags: ``+tag`` and ``-tag``, to be given and taken away.
    """

    task: TaskId
    counter: int
    order: str
    by: str
    at_s: float
    plan: Plan | None = None
    number: int = 0
    answer: str | None = None
    device: DeviceId | None = None
    seconds: float = 0.0
    tags: tuple[str, ...] = ()
