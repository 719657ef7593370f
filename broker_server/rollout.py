"""One release on its way over the fleet: its states, how each device fares, and when it goes on or back; pure.

A wave is offered, its devices commit, it is watched, the next one follows. Only what a device itself reports as
committed, with the hash of the running weights, counts; silence past the deadline is a failure. Owns no other rollout.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from broker_server.effects import Effect, OfferRelease, SaveProgress, SaveRollout, WithdrawRelease
from broker_server.records import ProgressRecord, RolloutRecord
from broker_server.rollout_fates import FATES, UNDECIDED, Fate, Sign
from broker_server.rollout_plan import Member, Tags, in_order, size_of
from broker_server.rollout_states import ACTIVE, MOVING, TABLE, RolloutEvent, RolloutState
from edge_protocol.effects import Send
from edge_protocol.fsm import permits, step
from edge_protocol.ids import DeviceId
from edge_protocol.messages import Deployment, Measure

LOOK_AGAIN_S = 5.0  # before the fleet is looked through again for devices that a wave could begin with
ASK_AGAIN_S, MEASURED_S = 120.0, 5.0
"""How often a device that must say how fast it answers is asked to measure, and for how long it measures."""
MAX_REASON = 500


@dataclass(slots=True)
class Rollout:
    """A rollout in progress.

    Args:
        record: what is written down of it.
        weights: tier → hashes of the weights payloads that a device may run: of the plain artifact and its variants.
    """

    record: RolloutRecord
    weights: Mapping[str, Collection[str]]
    devices: dict[DeviceId, ProgressRecord] = field(default_factory=dict)
    counts: Counter[Fate] = field(default_factory=Counter)
    _undecided: OrderedDict[DeviceId, float] = field(default_factory=OrderedDict)
    _asked: dict[DeviceId, float] = field(default_factory=dict)
    _look_at: float = 0.0

    @property
    def state(self) -> RolloutState:
        """Where it stands."""
        return RolloutState(self.record.state)

    @property
    def last_wave(self) -> bool:
        """Whether every device that it is for gets the release now."""
        return self.record.wave >= len(self.record.plan.waves)

    def restore(self, progress: Iterable[ProgressRecord], now: float) -> None:
        """Take the devices back from disk; nobody could be heard meanwhile, so deadlines and the soak begin anew."""
        for known in sorted(progress, key=lambda p: p.since_s):
            self._put(msgspec.structs.replace(known, since_s=now) if Fate(known.state) in UNDECIDED else known)
        if self.record.calm_s:
            self.record = self.record.changed(calm_s=now)

    def fire(self, event: RolloutEvent, now: float, reason: str = "") -> list[Effect]:
        """Take a step, and say what it means for the devices' desired release.

        Raises:
            IllegalTransitionError: the table has no such row.
        """
        if event is RolloutEvent.RESUME and self.record.wave == 0:
            event = RolloutEvent.RESUME_CANARY
        state = step(TABLE, self.state, event)
        changed: dict[str, object] = {"state": state.value, "reason": reason[:MAX_REASON]}
        if event is RolloutEvent.START:
            changed["started_s"] = now
        if event is RolloutEvent.ADVANCE:
            changed |= {"wave": self.record.wave + 1, "began_s": 0.0, "calm_s": 0.0}
        if state in {RolloutState.COMPLETE, RolloutState.ABORTED}:
            changed["ended_s"] = now
        self.record = self.record.changed(**changed)
        stays = state is not RolloutState.ABORTED and not (state is RolloutState.COMPLETE and self.record.whole_fleet)
        return [SaveRollout(self.record), *([] if stays else self.withdrawn())]

    def strand(self, why: str) -> list[Effect]:
        """Note why devices may still run it, "" when they need not any more."""
        if why == self.record.stranded:
            return []
        self.record = self.record.changed(stranded=why)
        return [SaveRollout(self.record)]

    def withdrawn(self) -> list[Effect]:
        """Clear what the broker keeps of it for single devices."""
        return [WithdrawRelease(self.record.task, tuple(self.devices))] if self.devices else []

    def advance(self, fleet: Callable[[], Iterable[Member]], tags: Tags, now: float) -> tuple[list[Effect], str]:
        """Do what is due; the second value says why the rollout must be aborted, "" when it need not.

        Args:
            fleet: every device of the task.
            tags: tag → patterns of device names.
            now: seconds since 1970.
        """
        effects = [*self._expire(now), *self._ask(now)] if self.state in ACTIVE else []
        if self.state not in MOVING:
            return effects, ""
        plan = self.record.plan
        if self.counts[Fate.FAILED] > plan.max_failures:
            return effects, f"{self.counts[Fate.FAILED]} devices failed, {plan.max_failures} are borne: {self._why()}"
        if self.record.began_s and not self._undecided:
            if not self.counts[Fate.COMMITTED]:
                return effects, "" if self.counts[Fate.ABSENT] else f"no device committed it: {self._why()}"
            effects += self._watch(now)
        if self.state in MOVING and not self.record.began_s:
            effects += self._begin(fleet, tags, now)
        return effects, ""

    def admit(self, member: Member, tags: Tags, now: float) -> list[Effect]:
        """Offer the release to a device that turned up after everyone had been offered it."""
        open_to_all = self.state in MOVING and self.last_wave and self.record.began_s > 0
        kept = self.state is RolloutState.COMPLETE and not self.record.whole_fleet
        if member.device in self.devices or not (open_to_all or kept) or not self.record.plan.covers(member, tags):
            return []
        return self._offer([member], now)

    def seen(self, device: DeviceId, now: float) -> list[Effect]:
        """A device is there."""
        return self._mark(device, Sign.SEEN, now)

    def lost(self, device: DeviceId, now: float) -> list[Effect]:
        """A device is not there any more: while its wave is watched, it has to come back."""
        known = self.devices.get(device)
        watched = known is not None and known.wave == self.record.wave and self.state in ACTIVE
        return self._mark(device, Sign.LOST, now) if watched else []

    def told(self, device: DeviceId, tier: str, told: Deployment, now: float) -> list[Effect]:
        """A device said where a release stands."""
        state = told.state.lower().replace("-", "_")
        effects, counter = self.seen(device, now), self.record.counter
        if told.release == counter and state in {"rejected", "rolled_back"}:
            return [*effects, *self._mark(device, Sign.FAIL, now, f"{state}: {told.reason}")]
        if state != "committed":
            return effects
        if told.running == counter and told.weights in self.weights.get(tier, ()):
            runs = Sign.COMMIT if self.record.plan.max_latency_p95_ms is None else Sign.RUN
            return [*effects, *self._mark(device, runs, now)]
        known = self.devices.get(device)
        if told.running == counter:
            return [*effects, *self._mark(device, Sign.FAIL, now, "runs other weights than the release has")]
        if told.running < counter and known is not None and known.state == Fate.COMMITTED.value:
            return [*effects, *self._mark(device, Sign.FAIL, now, f"fell back to release {told.running}")]
        return effects

    def measured(self, device: DeviceId, release: int, values: Mapping[str, float], now: float) -> list[Effect]:
        """A device said how fast it answers, or that it could not measure it: then `values` has no p95."""
        most, p95 = self.record.plan.max_latency_p95_ms, values.get("latency_p95_ms")
        known = self.devices.get(device)
        if most is None or p95 is None or release != self.record.counter or known is None:
            return []
        if p95 <= most:
            return self._mark(device, Sign.COMMIT, now) if known.state == Fate.MEASURING.value else []
        if known.state not in {Fate.MEASURING.value, Fate.COMMITTED.value}:
            return []
        return self._mark(device, Sign.FAIL, now, f"p95 latency {p95:.1f} ms is above {most:g} ms")

    def shift(self, by_s: float) -> None:
        """Move every deadline: of devices, of what they are asked to measure, of the soak."""
        self._undecided = OrderedDict((device, since + by_s) for device, since in self._undecided.items())
        self._asked = {device: at + by_s for device, at in self._asked.items()}
        self._look_at += by_s
        if self.record.calm_s:
            self.record = self.record.changed(calm_s=self.record.calm_s + by_s)

    def next_deadline(self) -> float | None:
        """When `advance` has something to do by itself, or None."""
        if self.state not in ACTIVE:
            return None
        due = [next(iter(self._undecided.values())) + self.record.plan.deadline_s] if self._undecided else []
        due += [self._asked.get(device, 0.0) + ASK_AGAIN_S for device in self._measuring()]
        if self.state in MOVING and not self.record.began_s:
            due.append(self.record.plan.opens_at(self._look_at))
        if self.state in MOVING and self.record.calm_s and not self._undecided:
            due.append(self.record.calm_s + self.record.plan.soak_s)
        return min(due, default=None)

    def _watch(self, now: float) -> list[Effect]:
        """Every device of the wave that is there has committed: watch for a while, then go on."""
        if not self.record.calm_s:
            self.record = self.record.changed(calm_s=now)
            return [SaveRollout(self.record), *(self._watch(now) if not self.record.plan.soak_s else [])]
        if now < self.record.calm_s + self.record.plan.soak_s:
            return []
        return self.fire(RolloutEvent.FINISH if self.last_wave else RolloutEvent.ADVANCE, now)

    def _begin(self, fleet: Callable[[], Iterable[Member]], tags: Tags, now: float) -> list[Effect]:
        plan = self.record.plan
        if now < self._look_at or plan.opens_at(now) > now:
            self._look_at = max(self._look_at, now)
            return []
        members = in_order((m for m in fleet() if plan.covers(m, tags)), f"{self.record.task}/{self.record.counter}")
        if not members:
            self._look_at = now + LOOK_AGAIN_S
            return []
        share = (plan.canary, *plan.waves)[self.record.wave]
        wanted = size_of(share, len(members), len({m.tier for m in members}))
        fresh = [m for m in members if m.device not in self.devices]
        more = max(0, wanted - (len(members) - len(fresh)))
        self.record = self.record.changed(began_s=now)
        return [SaveRollout(self.record), *self._offer(fresh[:more], now)]

    def _offer(self, members: list[Member], now: float) -> list[Effect]:
        effects: list[Effect] = []
        for member in members:
            fate = Fate.WAITING if member.present else Fate.ABSENT
            effects.append(self._save(member.device, fate, now, wave=self.record.wave))
        offered = tuple(member.device for member in members)
        return [*effects, OfferRelease(self.record.task, self.record.counter, offered)] if offered else []

    def _expire(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        patience = self.record.plan.deadline_s
        while self._undecided and now - next(iter(self._undecided.values())) >= patience:
            device = next(iter(self._undecided))
            what = "runs it and has not said how fast" if self._measures(device) else "silent about it"
            effects += self._mark(device, Sign.FAIL, now, f"{what} for {patience:g} s")
        return effects

    def _ask(self, now: float) -> list[Effect]:
        """Have devices measure that run the release and have not said yet how fast they answer."""
        due = [device for device in self._measuring() if now >= self._asked.get(device, 0.0) + ASK_AGAIN_S]
        self._asked |= dict.fromkeys(due, now)
        return [Send(Measure(self.record.task, MEASURED_S), to=device) for device in due]

    def _measuring(self) -> list[DeviceId]:
        return [device for device in self._undecided if self._measures(device)] if self.counts[Fate.MEASURING] else []

    def _measures(self, device: DeviceId) -> bool:
        return self.devices[device].state == Fate.MEASURING.value

    def _mark(self, device: DeviceId, sign: Sign, now: float, reason: str = "") -> list[Effect]:
        known = self.devices.get(device)
        if known is None or not permits(FATES, Fate(known.state), sign):
            return []
        return [self._save(device, step(FATES, Fate(known.state), sign), now, wave=known.wave, reason=reason)]

    def _save(self, device: DeviceId, fate: Fate, now: float, *, wave: int, reason: str = "") -> SaveProgress:
        progress = ProgressRecord(
            task=self.record.task,
            counter=self.record.counter,
            device=device,
            wave=wave,
            state=fate.value,
            since_s=now,
            reason=reason[:MAX_REASON],
        )
        self._put(progress)
        return SaveProgress(progress)

    def _put(self, progress: ProgressRecord) -> None:
        before, device = self.devices.get(progress.device), progress.device
        if before is not None:
            self.counts[Fate(before.state)] -= 1
        self.devices[device] = progress
        self.counts[Fate(progress.state)] += 1
        self._undecided.pop(device, None)
        if Fate(progress.state) in UNDECIDED:
            self._undecided[device] = progress.since_s

    def _why(self) -> str:
        failed = [p for p in self.devices.values() if p.state == Fate.FAILED.value]
        return "; ".join(f"{p.device} {p.reason}" for p in failed[:3])
