"""Every task's rollouts: which one is under way, what operators order, and the audit log of all of it; pure.

At most one rollout of a task is under way. A release whose rollout was aborted is taken back by releasing the files of
the release before it under a higher counter, for devices never go to a lower one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import msgspec

from broker_server.audit import AuditEntry
from broker_server.effects import (
    NO_ROUND,
    Effect,
    OfferRelease,
    ReleaseAgain,
    SaveAudit,
    SaveOrder,
    SaveProgress,
    SaveRollout,
)
from broker_server.events import Distilled, JobFailed
from broker_server.measuring import latency_of
from broker_server.records import OrderRecord, ProgressRecord, ReleaseRecord, RolloutRecord
from broker_server.registry import Device
from broker_server.rollout import MAX_REASON, Rollout
from broker_server.rollout_fates import Fate
from broker_server.rollout_orders import ORDERS, nobody, refusal
from broker_server.rollout_plan import Member, Plan, Tags
from broker_server.rollout_states import ACTIVE, RolloutEvent, RolloutState
from edge_protocol.ids import DeviceId, TaskId
from edge_protocol.manifest import decode_manifest
from edge_protocol.messages import Deployment, DeviceState, Measured

RETURN_AGAIN_S = 60.0
"""Pause before a release that was to be taken back, and is not, is asked for again."""
Fleet = Callable[[], Iterable[Device]]


@dataclass(frozen=True, slots=True)
class Ended:
    """A rollout has ended: its release becomes the fleet's, or its round is abandoned; for the coordinator."""

    release: ReleaseRecord
    complete: bool
    reason: str


@dataclass(slots=True)
class _Held:
    """A release that is not the fleet's (yet), and its rollout."""

    release: ReleaseRecord
    rollout: Rollout
    return_at: float | None = None


class Rollouts:
    """The rollouts of every task.

    Args:
        tags: tag → patterns of device names.
        fleet: every device of the server.
    """

    def __init__(self, tags: Tags, fleet: Fleet) -> None:
        self._tags, self._fleet = tags, fleet
        self._held: dict[TaskId, dict[int, _Held]] = {}

    def restore(
        self, held: Iterable[tuple[ReleaseRecord, RolloutRecord, Iterable[ProgressRecord]]], now: float
    ) -> list[Effect]:
        """Take rollouts back from disk, but for drafts that were never seen; say what the broker is to keep."""
        effects: list[Effect] = []
        for release, record, progress in (each for each in held if each[1].logged):
            rollout = self._add(release, record).rollout
            rollout.restore(progress, now)
            effects += self._placed(rollout)
        return effects

    def under_way(self, task: TaskId) -> Rollout | None:
        """The rollout of a task that has begun and not ended."""
        return next((h.rollout for h in self._of(task) if h.rollout.state in ACTIVE), None)

    def stored(self, release: ReleaseRecord, draft: RolloutRecord, now: float) -> list[Effect]:
        """A release was made that a rollout is to bring to the fleet."""
        if release.counter in self._held.get(release.task, {}):
            return []
        draft = draft.changed(logged=True)
        self._add(release, draft)
        how = "starts by itself" if draft.starts else "waits for a start"
        return [SaveRollout(draft), self._note(now, draft.by, "draft", draft, how)]

    def advance(self, task: TaskId, current: int, now: float) -> tuple[list[Effect], list[Ended]]:
        """Do what is due for a task, whose fleet has release `current` now."""
        effects, ended = self._tidy(task, current, now)
        for held in self._of(task):
            before = held.rollout.record
            did, why = held.rollout.advance(lambda: self._members(task), self._tags, now)
            effects += did + self._story(before, did, held, now)
            if _finished(before, held.rollout.record) and before.whole_fleet:
                ended.append(Ended(held.release, complete=True, reason=""))
            if why:
                did, end = self._end(held, RolloutEvent.ABORT, "server", why, now)
                effects, ended = effects + did, ended + end
            effects += self._take_back(held, current, now)
        return effects, ended

    def failed(self, event: Distilled | JobFailed) -> list[Effect]:
        """A release that was to come back could not be made; it is asked for again, and meanwhile this is told."""
        if isinstance(event, Distilled) or event.round != NO_ROUND:
            return []
        effects: list[Effect] = []
        for held in self._of(event.task):
            record = held.rollout.record
            if held.return_at is not None and record.baseline:
                by_hand = f"roadcast release again {record.task} {record.baseline} -c server.yaml --keys DIR"
                effects += held.rollout.strand(f"{event.reason[:MAX_REASON]}; tried again each minute; or: {by_hand}")
        return effects

    def obey(self, order: OrderRecord, current: int, now: float) -> tuple[list[Effect], list[Ended]]:
        """Do what an operator orders, or say why not."""
        held = self._held.get(order.task, {}).get(order.counter)
        refused = refusal(order, held.rollout if held else None, self.under_way(order.task), current)
        refused = refused or nobody(order, self._members(order.task), self._tags)
        if refused or held is None:
            return [SaveOrder(msgspec.structs.replace(order, answer=refused))], []
        effects, ended = self._obey(held, order, current, now)
        return [*effects, SaveOrder(msgspec.structs.replace(order, answer=""))], ended

    def place(self, device: Device, now: float) -> list[Effect]:
        """Note that a device is there, or is not any more."""
        effects: list[Effect] = []
        for task in device.tasks.keys() & self._held.keys():
            for held in self._of(task):
                rollout = held.rollout
                if device.present:
                    effects += rollout.admit(_member(device, task), self._tags, now) + rollout.seen(device.device, now)
                else:
                    effects += rollout.lost(device.device, now)
        return effects

    def told(self, device: Device, told: Deployment, now: float) -> list[Effect]:
        """A device said where a release stands."""
        task = TaskId(told.task)
        effects: list[Effect] = []
        for held in self._of(task):
            did = held.rollout.told(device.device, device.tasks[task].tier, told, now)
            effects += did + self._failures(did, held, now)
        return effects

    def measured(self, device: DeviceId, state: DeviceState | Measured, now: float) -> list[Effect]:
        """A device said how its task is doing, or how fast its student answers when nothing else does."""
        effects: list[Effect] = []
        values = state.values if isinstance(state, DeviceState) else latency_of(state)
        for held in self._of(TaskId(state.task)):
            did = held.rollout.measured(device, state.release, values, now)
            effects += did + self._failures(did, held, now)
        return effects

    def shift(self, by_s: float) -> None:
        """Move every deadline."""
        for held in (h for task in self._held for h in self._of(task)):
            held.rollout.shift(by_s)
            held.return_at = held.return_at if held.return_at is None else held.return_at + by_s

    def next_deadline(self) -> float | None:
        """When `advance` has something to do by itself, or None."""
        held = [h for task in self._held for h in self._of(task)]
        due = [*(h.rollout.next_deadline() for h in held), *(h.return_at for h in held)]
        return min((at for at in due if at is not None), default=None)

    def _of(self, task: TaskId) -> Iterator[_Held]:
        return iter(list(self._held.get(task, {}).values()))

    def _add(self, release: ReleaseRecord, record: RolloutRecord) -> _Held:
        weights: dict[str, set[str]] = {}
        for artifact in decode_manifest(release.manifest).artifacts:
            weights.setdefault(artifact.tier, set()).add(artifact.weights.sha256)
        held = _Held(release, Rollout(record, weights))
        self._held.setdefault(release.task, {})[release.counter] = held
        return held

    def _members(self, task: TaskId) -> Iterator[Member]:
        return (_member(device, task) for device in self._fleet() if task in device.tasks and _counts(device))

    def _tidy(self, task: TaskId, current: int, now: float) -> tuple[list[Effect], list[Ended]]:
        """Let go of what a newer release has overtaken, and start what waits for its turn."""
        effects: list[Effect] = []
        ended: list[Ended] = []
        drafts = [h for h in self._of(task) if h.rollout.state is RolloutState.DRAFT and h.rollout.record.starts]
        overtaken = {id(h) for h in drafts[:-1]}
        for held in self._of(task):
            open_ = held.rollout.state in ACTIVE or held.rollout.state is RolloutState.DRAFT
            if open_ and (held.release.counter < current or id(held) in overtaken):
                did, end = self._end(held, RolloutEvent.ABORT, "server", "a newer release took its place", now)
                effects, ended = effects + did, ended + end
            elif held.release.counter < current and held.return_at is None:
                del self._held[task][held.release.counter]
                effects += [] if held.rollout.record.whole_fleet else held.rollout.withdrawn()
        if drafts and drafts[-1].rollout.state is RolloutState.DRAFT and self.under_way(task) is None:
            effects += self._start(
                drafts[-1], drafts[-1].rollout.record.plan, drafts[-1].rollout.record.by, current, now
            )
        return effects, ended

    def _obey(self, held: _Held, order: OrderRecord, current: int, now: float) -> tuple[list[Effect], list[Ended]]:
        event = ORDERS[order.order]
        if event is RolloutEvent.START:
            return self._start(held, order.plan or held.rollout.record.plan, order.by, current, now), []
        if event in {RolloutEvent.ABORT, RolloutEvent.ROLLBACK}:
            return self._end(held, event, order.by, f"{order.order} by {order.by}", now)
        did = held.rollout.fire(event, now, f"paused by {order.by}" if event is RolloutEvent.PAUSE else "")
        return [*did, self._note(now, order.by, order.order, held.rollout.record)], []

    def _start(self, held: _Held, plan: Plan, by: str, current: int, now: float) -> list[Effect]:
        rollout = held.rollout
        rollout.fire(RolloutEvent.START, now)
        rollout.record = rollout.record.changed(plan=plan, by=by, baseline=current)
        asked = msgspec.json.encode(plan).decode()
        return [SaveRollout(rollout.record), self._note(now, by, "start", rollout.record, asked)]

    def _end(
        self, held: _Held, event: RolloutEvent, who: str, reason: str, now: float
    ) -> tuple[list[Effect], list[Ended]]:
        effects = held.rollout.fire(event, now, reason)
        held.return_at = now if held.rollout.devices else None
        noted = self._note(now, who, event.value, held.rollout.record, reason)
        return [*effects, noted], [Ended(held.release, complete=False, reason=f"rollout aborted: {reason}")]

    def _take_back(self, held: _Held, current: int, now: float) -> list[Effect]:
        """See to it that nobody stays on an aborted release: once a higher counter is the fleet's, nobody does."""
        record = held.rollout.record
        if held.return_at is None:
            return []
        if current > record.counter:
            held.return_at = None
            if not record.stranded:
                return []
            noted = self._note(now, "server", "take-back", record, f"the fleet has release {current}")
            return [*held.rollout.strand(""), noted]
        if now < held.return_at:
            return []
        held.return_at = now + RETURN_AGAIN_S
        if not record.baseline:
            return held.rollout.strand("there is no release before it; push another one")
        notes = f"release {record.baseline} again, in place of {record.counter}: {record.reason}"[:MAX_REASON]
        stranded = record.stranded or f"release {record.baseline} gets a new counter"
        return [*held.rollout.strand(stranded), ReleaseAgain(record.task, record.baseline, notes)]

    def _placed(self, rollout: Rollout) -> list[Effect]:
        """What the broker is to hold of a rollout after a restart."""
        record, devices = rollout.record, tuple(rollout.devices)
        kept = rollout.state is RolloutState.COMPLETE and not record.whole_fleet
        if rollout.state in ACTIVE or kept:
            return [OfferRelease(record.task, record.counter, devices)] if devices else []
        if rollout.state is RolloutState.ABORTED and devices:
            self._held[record.task][record.counter].return_at = 0.0
        return rollout.withdrawn()

    def _story(self, before: RolloutRecord, did: list[Effect], held: _Held, now: float) -> list[Effect]:
        """Audit entries for what the clock set off."""
        record, story = held.rollout.record, self._failures(did, held, now)
        for effect in did:
            if isinstance(effect, OfferRelease):
                names = f"{len(effect.devices)} devices: {', '.join(effect.devices[:10])}"
                story.append(self._note(now, "server", f"wave-{record.wave}", record, names))
        if _finished(before, record):
            story.append(self._note(now, "server", "complete", record))
        return story

    def _failures(self, did: list[Effect], held: _Held, now: float) -> list[Effect]:
        """An audit entry for every device that failed."""
        failed = [e.record for e in did if isinstance(e, SaveProgress) and e.record.state == Fate.FAILED.value]
        return [self._note(now, p.device, "failed", held.rollout.record, p.reason) for p in failed]

    def _note(self, now: float, who: str, what: str, record: RolloutRecord, detail: str = "") -> SaveAudit:
        task, release = record.task, record.counter
        return SaveAudit(AuditEntry(at_s=now, who=who, what=what, task=task, release=release, detail=detail))


def _member(device: Device, task: TaskId) -> Member:
    runs = device.tasks[task]
    return Member(device.device, runs.tier, device.birth.board, runs.student, device.present, device.tags)


def _finished(before: RolloutRecord, after: RolloutRecord) -> bool:
    return after.state == RolloutState.COMPLETE.value != before.state


def _counts(device: Device) -> bool:
    return device.status.value != "retired"
