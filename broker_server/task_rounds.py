"""The rounds of one task, one after the other: when one opens, is called, closes, and what becomes of it; pure.

Owns the task's current release number and which devices are ready for a round. Owns no device and no disk.

An open call names the fleet's release. The disk may hold a newer one that is not the fleet's: a rollout holds it back,
or an operator pushed it and the pump has not looked yet; when it becomes the fleet's, the round is superseded. A closed
call goes on naming the release that its round began at, so the release that the round itself made is newer than it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from broker_server.config import RoundsConfig
from broker_server.effects import CancelDistil, Distil, Effect, MakeRelease, PublishRelease, PublishRound, SaveRound
from broker_server.events import Distilled, JobFailed
from broker_server.floor import basis_of, fitting
from broker_server.judge import JudgeRules, judge
from broker_server.records import ReleaseRecord
from broker_server.registry import Device
from broker_server.rounds import Round, RoundEvent, RoundState
from edge_protocol.blobs import BlobRef
from edge_protocol.ids import DeviceId, TaskId
from edge_protocol.task import TaskSpec

RETRY_S = 30.0
"""Least rest after a first release that could not be made."""
STAYING = frozenset({"rejected", "rolled_back"})
"""Deployment states in which a device has given a release up for good."""
RESUME_S = 30.0
"""A round that was collecting when the server stopped takes reports for at least this long after it is back."""


@dataclass(frozen=True, slots=True)
class TaskSetup:
    """What the server knows of a task before it starts.

    Attributes:
        proxy: the proxy set as devices fetch it; None where rounds ask for class means.
        samples: votes that a report on it must hold.
        judge: what a candidate may lose.
    """

    spec: TaskSpec
    proxy: BlobRef | None
    samples: int
    rounds: RoundsConfig
    judge: JudgeRules = field(default_factory=JudgeRules)


class TaskRounds:
    """One task's rounds. Methods return what is to be done."""

    def __init__(self, setup: TaskSetup) -> None:
        self.setup = setup
        self.release = 0
        self.round: Round | None = None
        self.ready: set[DeviceId] = set()
        self.silent: set[DeviceId] = set()
        """Devices that do not keep others from a round, and are not waited for: their privacy budget is spent, or they
        sent the current release back and stay with an older one, from which they may answer."""
        self.held = False
        """Whether a rollout is under way: no new round opens, for the fleet runs two releases."""
        self._next_at = 0.0

    @property
    def task(self) -> TaskId:
        """The task's name."""
        return self.setup.spec.task_id

    def place(self, device: Device) -> None:
        """Note whether a device is ready for a round: present, with the current release, and something left to say."""
        runs = device.tasks.get(self.task) if device.present else None
        if runs is not None and runs.label_space != self.setup.spec.label_space:
            runs = None
        current = self.round
        fits = runs is not None and 0 < self.release == runs.release
        stays = runs is not None and 0 < runs.release < self.release and runs.deployment in STAYING
        spent = self.task in device.spent
        (self.silent.add if stays or (fits and spent) else self.silent.discard)(device.device)
        if fits and not spent:
            self.ready.add(device.device)
            if current and current.collecting and not current.heard(device.device):
                current.waiting.add(device.device)
        else:
            self.ready.discard(device.device)
            if current:
                current.waiting.discard(device.device)

    def advance(self, now: float) -> list[Effect]:
        """Do what is due, and say what follows from it."""
        effects: list[Effect] = []
        while step := self._step(now):
            effects += step
        return effects

    def _step(self, now: float) -> list[Effect]:
        current = self.round
        if current is None or current.closed:
            return self._open(now)
        if current.state is RoundState.OPEN:
            return self._begin(current, now) if current.number == 0 else self._call(current, now)
        if current.collecting and (verdict := current.verdict(now)):
            return self._close(current, verdict, now)
        return []

    def _open(self, now: float) -> list[Effect]:
        number = self._next_number()
        limit = self.setup.rounds.limit
        if self.held or now < self._next_at or (limit is not None and number > limit):
            return []
        proxy, samples = (self.setup.proxy, self.setup.samples) if number else (None, 0)
        before, moved = self.round, list[Effect]()
        asked = self.setup.rounds
        self.round = Round(number, self.release, proxy, samples, now, asked.quorum, asked.enough)
        if before is not None and before.floor is not None:
            self.round.floor, before.floor, before.raised = before.floor, None, None
            moved = [SaveRound(before.record(self.setup.spec))]
        return [*moved, self._save()]

    def _next_number(self) -> int:
        if not self.release:
            return 0
        return self.round.number + 1 if self.round else 1

    def _begin(self, current: Round, now: float) -> list[Effect]:
        current.fire(RoundEvent.BEGIN, now)
        return [self._save(), Distil(self.task, current.number, current.release)]

    def _call(self, current: Round, now: float) -> list[Effect]:
        if self.held or not self.ready or len(self.ready) + len(self.silent) < self.setup.rounds.wait_for:
            return []
        current.fire(RoundEvent.CALL, now)
        current.deadline_s = now + self.setup.rounds.deadline_s
        current.waiting = set(self.ready)
        return [self._save(), self._publish()]

    def _close(self, current: Round, verdict: RoundEvent, now: float) -> list[Effect]:
        got = f"{len(current.answered)} of the {current.quorum} reports of the quorum came before the deadline"
        current.fire(verdict, now, "" if verdict is RoundEvent.ENOUGH else got)
        if verdict is RoundEvent.ENOUGH:
            return [self._save(), self._publish(), Distil(self.task, current.number, current.release)]
        self._rest(now)
        return [self._save(), self._publish()]

    def refuse(self, device: DeviceId, reason: str, now: float) -> list[Effect]:
        """Note why a device's report does not count, and go on without it; written down when the round next is."""
        if self.round is None or not self.round.collecting:
            return []
        self.round.refuse(device, reason)
        return self.advance(now)

    def distilled(self, event: Distilled, now: float) -> list[Effect]:
        """Judge a candidate."""
        current = self.round
        if current is None or current.number != event.round or current.state is not RoundState.DISTILLING:
            return []
        current.refused |= event.result.devices
        current.manifest = event.manifest
        current.fire(RoundEvent.DISTILLED, now)
        current.rules = self.setup.judge
        current.floor = fitting(current.floor, basis_of(event.result.validation, current.rules), current.release)
        verdict = judge(event.result, current.rules, current.floor)
        if verdict.accepted:
            current.raised = current.floor.raised(event.result)
            current.reason = verdict.reason
            metrics = {f"{t}/{name}": v for t, m in event.result.metrics.items() for name, v in m["candidate"].items()}
            return [self._save(), MakeRelease(self.task, current.number, metrics)]
        current.fire(RoundEvent.REFUSED, now, verdict.reason)
        self._rest(now)
        return [self._save()]

    def failed(self, event: JobFailed, now: float) -> list[Effect]:
        """Give up a round whose candidate or release could not be made."""
        current = self.round
        if current is None or current.number != event.round or not current.in_work:
            return []
        current.fire(RoundEvent.FAILED, now, event.reason)
        self._rest(now)
        return [self._save()]

    def released(self, record: ReleaseRecord, now: float) -> list[Effect]:
        """Move to a newer release. The caller places every device again afterwards."""
        if record.counter <= self.release:
            return []
        self.release = record.counter
        self.ready.clear()
        self.silent.clear()
        return [PublishRelease(self.task, record.counter), *self._settle(record, now)]

    def _settle(self, record: ReleaseRecord, now: float) -> list[Effect]:
        current = self.round
        if current is None or current.closed:
            return []
        if current.state is RoundState.OPEN:
            current.release = record.counter
            return [self._save()]
        self._rest(now)
        if current.state is RoundState.JUDGING:
            if record.round != current.number:
                return []
            current.released(record.counter, now)
            return [self._save()]
        return self._supersede(current, f"release {record.counter} was pushed meanwhile", now)

    def hold(self, counter: int, now: float) -> list[Effect]:
        """A rollout is under way: what was asked of the fleet before it began is void, for its release would be too."""
        self.held, current = True, self.round
        if current is None or current.number == 0 or not current.pending:
            return []
        return self._supersede(current, f"a rollout of release {counter} began meanwhile", now)

    def forget(self, device: DeviceId, now: float, *, heard: bool) -> list[Effect]:
        """Do without what a device has said; a round that is being distilled from it, or may be, is given up."""
        current = self.round
        if not current or not current.number or not (current.answered.pop(device, None) or heard):
            return []
        distilling = current.state is RoundState.DISTILLING
        return self._supersede(current, f"{device} was retired meanwhile", now) if distilling else []

    def _supersede(self, current: Round, why: str, now: float) -> list[Effect]:
        self._rest(now)
        distilling = current.state is RoundState.DISTILLING
        current.fire(RoundEvent.SUPERSEDED, now, why)
        current.waiting.clear()
        effects: list[Effect] = [self._save()]
        if distilling:
            effects.append(CancelDistil(self.task, current.number))
        return [*effects, self._publish()] if current.number else effects

    def resume(
        self, release: ReleaseRecord | None, current: Round | None, now: float, *, rolling: bool = False
    ) -> list[Effect]:
        """Go on after a restart from what was on disk. The caller then places the devices and calls `advance`.

        What was asked about another proxy set, or for another kind of report, than the setup's is void.

        Args:
            release: the fleet's release.
            current: the newest round.
            now: seconds since 1970.
            rolling: the round's release is made, and a rollout brings it to the fleet.
        """
        self.round = current
        self.release = release.counter if release else 0
        effects: list[Effect] = [PublishRelease(self.task, self.release)] if release else []
        if current is None:
            return effects
        changed = current.number > 0 and current.proxy != self.setup.proxy
        match current.state:
            case RoundState.OPEN:
                current.release = self.release
                if current.number:
                    current.proxy, current.samples = self.setup.proxy, self.setup.samples
            case RoundState.COLLECTING if not changed:
                most = self.setup.rounds.deadline_s
                current.deadline_s = min(max(current.deadline_s, now + min(RESUME_S, most)), now + most)
            case RoundState.JUDGING if release is not None and release.round == current.number:
                current.released(release.counter, now)
            case RoundState.JUDGING if rolling:
                pass
            case RoundState.DISTILLING | RoundState.JUDGING:
                current.fire(RoundEvent.RESTARTED, now)
                effects += [] if changed else [Distil(self.task, current.number, current.release)]
        if changed and current.pending:
            why = "the server was restarted with another proxy set or strategy: it asks anew"
            return [*effects, *self._supersede(current, why, now)]
        self._rest(min(current.closed_s, now))
        told = current.number > 0 and current.state is not RoundState.OPEN
        return [self._save(), *effects, *([self._publish()] if told else [])]

    def shift(self, by_s: float) -> list[Effect]:
        """Move every deadline; devices are told of the round's."""
        self._next_at += by_s
        if self.round is None or not self.round.collecting:
            return []
        self.round.deadline_s += by_s
        return [self._save(), self._publish()]

    def next_deadline(self) -> float | None:
        """When `advance` has something to do by itself, or None."""
        current = self.round
        if current is None or current.closed:
            limit = self.setup.rounds.limit
            over = self.held or (limit is not None and self._next_number() > limit)
            return None if over else self._next_at
        return current.deadline_s if current.collecting else None

    def _rest(self, since: float) -> None:
        pause = self.setup.rounds.pause_s
        self._next_at = since + (pause if self.release else max(pause, RETRY_S))

    def _save(self) -> SaveRound:
        assert self.round is not None
        return SaveRound(self.round.record(self.setup.spec))

    def _publish(self) -> PublishRound:
        assert self.round is not None
        shares = self.setup.rounds.trunk
        return PublishRound(self.round.call(self.setup.spec, shares.ask if shares else None))
