"""Which devices there are and which of them are there now; pure. Owns liveness, not what a device's messages mean.

A device is known from its `Birth`. Any message shows that it lives; silence, or its last will, that it does not.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum

from broker_server.records import DeviceRecord, DeviceTask
from edge_protocol.fsm import Table, permits, step
from edge_protocol.ids import DeviceId, TaskId
from edge_protocol.messages import Birth, Header, RunningTask


class DeviceStatus(Enum):
    """Liveness of a device."""

    UNKNOWN = "unknown"
    ONLINE = "online"
    STALE = "stale"
    OFFLINE = "offline"
    RETIRED = "retired"


class DeviceEvent(Enum):
    """What moves a device between states."""

    BORN = "born"
    HEARD = "heard"
    QUIET = "quiet"
    GONE = "gone"
    RETIRE = "retire"
    REINSTATE = "reinstate"


_S, _E = DeviceStatus, DeviceEvent
TABLE: Table[DeviceStatus, DeviceEvent] = {
    (_S.UNKNOWN, _E.BORN): _S.ONLINE,
    (_S.ONLINE, _E.BORN): _S.ONLINE,
    (_S.ONLINE, _E.HEARD): _S.ONLINE,
    (_S.ONLINE, _E.QUIET): _S.STALE,
    (_S.ONLINE, _E.GONE): _S.OFFLINE,
    (_S.ONLINE, _E.RETIRE): _S.RETIRED,
    (_S.STALE, _E.BORN): _S.ONLINE,
    (_S.STALE, _E.HEARD): _S.ONLINE,
    (_S.STALE, _E.QUIET): _S.OFFLINE,
    (_S.STALE, _E.GONE): _S.OFFLINE,
    (_S.STALE, _E.RETIRE): _S.RETIRED,
    (_S.OFFLINE, _E.BORN): _S.ONLINE,
    (_S.OFFLINE, _E.HEARD): _S.ONLINE,
    (_S.OFFLINE, _E.GONE): _S.OFFLINE,
    (_S.OFFLINE, _E.RETIRE): _S.RETIRED,
    (_S.RETIRED, _E.REINSTATE): _S.OFFLINE,
}


@dataclass(slots=True)
class Device:
    """A known device.

    Attributes:
        spent: tasks for which its privacy budget allows no further report.
        sequences: newest header sequence of this boot, per kind of message that replaces the one before.
        tags: that an operator gave it.
    """

    device: DeviceId
    status: DeviceStatus
    boot_id: bytes
    birth: Birth
    tasks: dict[TaskId, DeviceTask]
    seen_s: float
    spent: set[TaskId] = field(default_factory=set)
    sequences: dict[str, int] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()

    @property
    def present(self) -> bool:
        """Whether a round should wait for it: online, or silent for a short time only."""
        return self.status in {DeviceStatus.ONLINE, DeviceStatus.STALE}

    def newer(self, header: Header, key: str) -> bool:
        """Tell whether a message is of this boot and newer than the last one under `key`, and remember it."""
        if header.boot_id != self.boot_id or header.sequence <= self.sequences.get(key, -1):
            return False
        self.sequences[key] = header.sequence
        return True

    def record(self) -> DeviceRecord:
        """The device as it is written down."""
        birth = self.birth
        return DeviceRecord(
            device=self.device,
            state=self.status.value,
            boot_id=self.boot_id,
            board=birth.board,
            software=birth.software,
            runtime=birth.runtime,
            cores=birth.cores,
            memory_bytes=birth.memory_bytes,
            tasks=tuple(self.tasks.values()),
            seen_s=self.seen_s,
            tags=tuple(sorted(self.tags)),
        )


class Registry:
    """The devices of a fleet. Every operation costs the same however many there are.

    Args:
        stale_after_s: silence after which an online device is stale.
        offline_after_s: further silence after which it is offline.
        max_devices: births beyond this number are refused.
    """

    def __init__(self, *, stale_after_s: float, offline_after_s: float, max_devices: int) -> None:
        self.devices: dict[DeviceId, Device] = {}
        self._patience = {DeviceStatus.ONLINE: stale_after_s, DeviceStatus.STALE: offline_after_s}
        self._since: dict[DeviceStatus, OrderedDict[DeviceId, float]] = {s: OrderedDict() for s in self._patience}
        self._max = max_devices

    def born(self, header: Header, birth: Birth, now: float) -> Device | None:
        """Register a birth; None when the device is retired or the fleet is full."""
        name = DeviceId(header.sender)
        known = self.devices.get(name)
        if known is None and len(self.devices) >= self._max:
            return None
        status = known.status if known else DeviceStatus.UNKNOWN
        if not permits(TABLE, status, DeviceEvent.BORN):
            return None
        device = known or Device(name, status, header.boot_id, birth, {}, now)
        if device.boot_id != header.boot_id:
            device.sequences.clear()
            device.spent.clear()
        device.boot_id, device.birth = header.boot_id, birth
        device.tasks = {TaskId(t.task): _running(t, device.tasks.get(TaskId(t.task))) for t in birth.tasks}
        self.devices[name] = device
        self.fire(device, DeviceEvent.BORN, now)
        return device

    def fire(self, device: Device, event: DeviceEvent, now: float) -> bool:
        """Take a step; return whether the status changed.

        Raises:
            IllegalTransitionError: the table has no such row, such as any message of a retired device.
        """
        before, device.status = device.status, step(TABLE, device.status, event)
        if event in {DeviceEvent.BORN, DeviceEvent.HEARD}:
            device.seen_s = now
        for status, since in self._since.items():
            since.pop(device.device, None)
            if device.status is status:
                since[device.device] = now
        return device.status is not before

    def quiet(self, now: float) -> list[Device]:
        """Move on the devices that have been silent too long; return them."""
        moved = []
        for status in (DeviceStatus.STALE, DeviceStatus.ONLINE):
            since = self._since[status]
            while since and now - next(iter(since.values())) >= self._patience[status]:
                device = self.devices[next(iter(since))]
                self.fire(device, DeviceEvent.QUIET, now)
                moved.append(device)
        return moved

    def shift(self, by_s: float) -> None:
        """Move every deadline."""
        for status, since in self._since.items():
            self._since[status] = OrderedDict((device, at + by_s) for device, at in since.items())

    def next_deadline(self) -> float | None:
        """When the first device will have been silent too long, or None."""
        due = [next(iter(q.values())) + self._patience[s] for s, q in self._since.items() if q]
        return min(due, default=None)

    def restore(self, record: DeviceRecord, now: float) -> None:
        """Take a device back from disk: nobody knows yet whether it is there, so one that was is stale."""
        birth = Birth(record.board, record.software, record.runtime, record.cores, record.memory_bytes, ())
        status = DeviceStatus(record.state)
        device = Device(record.device, status, record.boot_id, birth, {t.task: t for t in record.tasks}, record.seen_s)
        device.tags = frozenset(record.tags)
        self.devices[record.device] = device
        if device.present:
            device.status = DeviceStatus.STALE
            self._since[DeviceStatus.STALE][record.device] = now


def _running(told: RunningTask, before: DeviceTask | None) -> DeviceTask:
    return DeviceTask(
        task=TaskId(told.task),
        label_space=told.label_space,
        tier=told.tier,
        student=told.student,
        release=told.release,
        deployment=before.deployment if before else "",
        reason=before.reason if before else "",
        weights=before.weights if before and before.release == told.release else "",
    )
