"""The server's brain: messages and outcomes in, effects out; pure. Owns no clock, no disk, no network and no thread.

Each durable message gets exactly one answer, an `Ack`, and the same one when it comes again. The cost of a message does
not depend on how many devices there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec.structs import replace
from typing_extensions import assert_never

from broker_server import device_orders
from broker_server.config import FleetConfig
from broker_server.effects import (
    Effect,
    Republish,
    SaveDevice,
    SaveResult,
    SaveSeen,
    SaveState,
    SaveTelemetry,
)
from broker_server.events import Distilled, JobFailed, Ordered, Outcome, ReleaseStored
from broker_server.intake import Answer, Intake
from broker_server.measuring import taken
from broker_server.periods import NEVER, over
from broker_server.records import DeviceRecord, ReleaseRecord, SeenMessage, StoredState
from broker_server.registry import TABLE, Device, DeviceEvent, Registry
from broker_server.rollouts import Ended, Rollouts
from broker_server.seen import SeenMessages, name_of
from broker_server.standstill import Standstill
from broker_server.task_rounds import TaskRounds
from edge_protocol import messages as m
from edge_protocol.effects import Drop, Send
from edge_protocol.fsm import permits
from edge_protocol.ids import SERVER, DeviceId, TaskId

REBIRTH_PAUSE_S = 10.0
SETTLED = frozenset({"committed", "rolled_back"})
"""Deployment states in which the running release is the one the device stays with."""
SPENT = "privacy budget spent"
"""What the session of a device says that reports no more."""


class Coordinator:
    """Registry, rounds and rollouts of every task behind one `handle`; a setup gives them back what is on disk."""

    def __init__(self, tasks: Iterable[TaskRounds], config: FleetConfig) -> None:
        self.tasks: dict[TaskId, TaskRounds] = {task.task: task for task in tasks}
        self.registry = Registry(
            stale_after_s=config.stale_after_s,
            offline_after_s=config.offline_after_s,
            max_devices=config.max_devices,
        )
        self.rollouts = Rollouts(config.tags, self.registry.devices.values)
        self.seen = SeenMessages(keep_s=config.keep_messages_s, limit=config.keep_messages)
        self.standstill = Standstill(self.registry, self.rollouts, self.tasks.values())
        self.intake = Intake(self.tasks)
        self._asked: dict[DeviceId, float] = {}
        self._max = config.max_devices

    def restore(self, devices: Iterable[DeviceRecord], seen: Iterable[SeenMessage], now: float) -> list[Effect]:
        """Take devices and answers back from disk, after each task's `resume`; then go on."""
        for record in devices:
            self.registry.restore(record, now)
        self.seen.restore(seen)
        for task in self.tasks.values():
            self._place_all(task)
        return self.tick(now)

    def tick(self, now: float) -> list[Effect]:
        """Do what the clock alone makes due."""
        effects: list[Effect] = []
        for device in [] if self.standstill else self.registry.quiet(now):
            effects += self._changed(device, now)
        for task in self.tasks.values():
            effects += self._advance(task, now)
        return effects

    def next_deadline(self) -> float | None:
        """When `tick` will have something to do, or None."""
        due = [self.registry.next_deadline(), self.rollouts.next_deadline()]
        due += [task.next_deadline() for task in self.tasks.values()]
        return None if self.standstill else min((at for at in due if at is not None), default=None)

    def learn(self, outcome: Outcome, now: float) -> list[Effect]:
        """Take the outcome of work that was asked for."""
        match outcome:
            case ReleaseStored(record, draft):
                task = self.tasks.get(record.task)
                if task is None:
                    return [Drop("unknown-task", f"release of {record.task!r}: this server has no such task")]
                effects = self.rollouts.stored(record, draft, now) if draft else self._current(task, record, now)
            case Ordered(order) if order.device is not None:
                changed, effects = device_orders.obey(order, self.registry, now)
                if changed and order.order == device_orders.RETIRE:
                    effects += self.intake.forget(changed, now)
                return effects + (self._changed(changed, now) if changed else [])
            case Ordered(order):
                task = self.tasks.get(order.task)
                if task is None:
                    return [Drop("unknown-task", f"order for {order.task!r}: this server has no such task")]
                effects = self._settle(task, *self.rollouts.obey(order, task.release, now), now)
            case Distilled() | JobFailed():
                task, effects = self.tasks[outcome.task], self.rollouts.failed(outcome)
                effects += task.distilled(outcome, now) if isinstance(outcome, Distilled) else task.failed(outcome, now)
            case _:
                assert_never(outcome)
        return effects + self._advance(task, now)

    def handle(self, envelope: m.Envelope, now: float) -> list[Effect]:
        """Take a message that a device sent; `codec.decode` has checked that the topic's device is its sender."""
        header, body = envelope.header, envelope.body
        if header.sender == SERVER:
            return [Drop("reserved-name", f"a device calls itself {SERVER!r}")]
        if isinstance(body, m.Birth):
            return self._birth(header, body, now)
        if isinstance(body, m.Presence):
            return self._presence(header, body, now)
        device = self.registry.devices.get(DeviceId(header.sender))
        if device is None:
            return [Drop("unknown-device", f"{header.sender} is not registered"), *self._ask(header, now)]
        if not permits(TABLE, device.status, DeviceEvent.HEARD):
            return [Drop("retired-device", f"{header.sender} is retired")]
        back = self.registry.fire(device, DeviceEvent.HEARD, now)
        effects = [] if header.boot_id == device.boot_id else self._ask(header, now)
        return effects + self._say(device, header, body, now) + (self._changed(device, now) if back else [])

    def unreadable(self, sender: DeviceId, reason: str, now: float, task: str | None = None) -> list[Effect]:
        """Note in the round that collects from a device that its report could not be read: NaN, a wrong shape, junk.

        Args:
            sender: whose topic it came on.
            reason: for the operator.
            now: seconds since 1970.
            task: that it seems to be of; None when not even that can be read.
        """
        device = self.registry.devices.get(sender)
        return self.intake.unreadable(device, task, reason, now) if device else []

    def _say(self, device: Device, header: m.Header, body: m.Body, now: float) -> list[Effect]:  # noqa: C901, PLR0911 - a kind each
        match body:
            case m.KnowledgeReport() | m.CodedReport() | m.PrototypeReport():
                return self._durable(header, now, lambda: self.intake.take(device.device, header.message_id, body, now))
            case m.IntervalResult():
                saved = SaveResult(device.device, name_of(header), now, body)
                return self._durable(header, now, lambda: ([saved], ""))
            case m.Measured():
                return self._durable(header, now, lambda: taken(device, body, self.rollouts.measured, now))
            case m.Deployment():
                return self._durable(header, now, lambda: self._deployment(device, header, body, now))
            case m.DeviceState() if body.task not in device.tasks:
                return [Drop("wrong-task", f"{header.sender} told of no task {body.task!r} at its birth")]
            case m.DeviceState():
                if device.newer(header, f"state/{body.task}"):
                    slow = self.rollouts.measured(device.device, body, now)
                    stored = StoredState(device=device.device, at_s=now, state=body)
                    return [*slow, SaveState(stored), *self._spent(device, body, now)]
                return [Drop("out-of-order", f"state of {header.sender} is older than the one before")]
            case m.Telemetry():
                if device.newer(header, "telemetry"):
                    return [SaveTelemetry(device.device, now, body)]
                return [Drop("out-of-order", f"telemetry of {header.sender} is older than the one before")]
            case m.Need():
                return [Republish(device.device, body.sha256, body.indices)]
            case _:
                return [
                    Drop("wrong-direction", f"{header.sender} sent a {type(body).__name__}, which only a server may")
                ]

    def _durable(self, header: m.Header, now: float, act: Callable[[], Answer]) -> list[Effect]:
        """Answer a durable message once, and again in the same words when it comes again."""
        to = DeviceId(header.sender)
        key = name_of(header)
        before = self.seen.get(key)
        if before is not None:
            return [
                Send(m.Ack(header.message_id, before.accepted, before.reason), to=to),
                Drop("repeated", f"message {header.message_id.hex()[:8]} of {to} came again"),
            ]
        effects, reason = act()
        seen = SeenMessage(key, not reason, reason, now)
        self.seen.put(seen)
        refused = [Drop(reason, f"message {header.message_id.hex()[:8]} of {to}")] if reason else []
        return [*effects, SaveSeen(seen), Send(m.Ack(header.message_id, seen.accepted, reason), to=to), *refused]

    def _deployment(self, device: Device, header: m.Header, told: m.Deployment, now: float) -> Answer:
        name = TaskId(told.task)
        runs = device.tasks.get(name)
        if runs is None:
            return [], "wrong-task"
        if not device.newer(header, f"deployment/{name}"):
            return [], ""
        state = told.state.lower().replace("-", "_")
        release, weights = (told.running, told.weights) if state in SETTLED else (runs.release, runs.weights)
        device.tasks[name] = replace(runs, release=release, deployment=state, reason=told.reason, weights=weights)
        return [*self.rollouts.told(device, told, now), *self._changed(device, now)], ""

    def _spent(self, device: Device, told: m.DeviceState, now: float) -> list[Effect]:
        """Wait no more for a device whose privacy budget is spent, and wait again for one that was granted more."""
        task, spent = TaskId(told.task), told.session == SPENT
        if spent is (task in device.spent):
            return []
        device.spent ^= {task}
        return self._changed(device, now)

    def _birth(self, header: m.Header, birth: m.Birth, now: float) -> list[Effect]:
        device = self.registry.born(header, birth, now)
        if device is None:
            return [Drop("birth-refused", f"{header.sender} is retired, or the fleet has {self._max} devices already")]
        return [*self._changed(device, now), Send(m.Ack(header.message_id, True), to=device.device)]  # noqa: FBT003 - the wire's own order

    def _presence(self, header: m.Header, presence: m.Presence, now: float) -> list[Effect]:
        device = self.registry.devices.get(DeviceId(header.sender))
        if device is None or (presence.online and device.boot_id != header.boot_id):
            return self._ask(header, now) if presence.online else []
        event = DeviceEvent.HEARD if presence.online else DeviceEvent.GONE
        if device.boot_id != header.boot_id or not permits(TABLE, device.status, event):
            return []
        return self._changed(device, now) if self.registry.fire(device, event, now) else []

    def _changed(self, device: Device, now: float) -> list[Effect]:
        effects: list[Effect] = [SaveDevice(device.record()), *self.rollouts.place(device, now)]
        for name in device.tasks.keys() & self.tasks.keys():
            self.tasks[name].place(device)
            effects += self.tasks[name].advance(now)
        return effects

    def _ask(self, header: m.Header, now: float) -> list[Effect]:
        """Ask for a birth, not too often."""
        device = DeviceId(header.sender)
        if not over(self._asked.get(device, NEVER), REBIRTH_PAUSE_S, now):
            return []
        if len(self._asked) >= self._max:
            self._asked.clear()
        self._asked[device] = now
        return [Send(m.Rebirth(), to=device)]

    def _advance(self, task: TaskRounds, now: float) -> list[Effect]:
        if self.standstill:
            return []
        effects = self._settle(task, *self.rollouts.advance(task.task, task.release, now), now)
        return effects + task.advance(now)

    def _settle(self, task: TaskRounds, effects: list[Effect], ended: list[Ended], now: float) -> list[Effect]:
        """Have a task follow its rollouts: a release is the fleet's once its rollout is complete, no sooner."""
        for end in ended:
            if end.complete:
                effects += self._current(task, end.release, now)
            elif end.release.round is not None:
                effects += task.failed(JobFailed(task.task, end.release.round, end.reason), now)
        rollout = self.rollouts.under_way(task.task)
        task.held = False
        return [*effects, *task.hold(rollout.record.counter, now)] if rollout else effects

    def _current(self, task: TaskRounds, record: ReleaseRecord, now: float) -> list[Effect]:
        effects = task.released(record, now)
        self._place_all(task)
        return effects

    def _place_all(self, task: TaskRounds) -> None:
        for device in self.registry.devices.values():
            task.place(device)
