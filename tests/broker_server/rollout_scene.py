"""A coordinator with a disk, a broker and devices as plain dictionaries: what rollout tests are played with."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import msgspec

from broker_server import effects as e
from broker_server.audit import AuditEntry
from broker_server.config import FleetConfig, RoundsConfig
from broker_server.coordinator import Coordinator
from broker_server.events import Ordered, ReleaseStored
from broker_server.records import (
    DeviceRecord,
    OrderRecord,
    ProgressRecord,
    ReleaseRecord,
    RolloutRecord,
    RoundRecord,
)
from broker_server.rollout import Rollout
from broker_server.rollout_plan import Plan
from broker_server.rounds import Round, restored
from broker_server.task_rounds import TaskRounds, TaskSetup
from edge_protocol import messages as m
from edge_protocol.blobs import cut
from edge_protocol.effects import Send
from edge_protocol.ids import DeviceId
from edge_protocol.manifest import Artifact, ReleaseManifest, decode_manifest
from edge_protocol.task import TIERS
from tests.broker_server.scenes import PROXY, SAMPLES, SPEC, TASK

Held = tuple[ReleaseRecord, RolloutRecord, list[ProgressRecord]]
FLEET = FleetConfig(stale_after_s=1e9, offline_after_s=1e9, tags={"north": ("cam-1*",)})
NO_ROUNDS = RoundsConfig(limit=0)
PLAN = Plan(canary=0.2, waves=(0.5, 1.0), soak_s=60, deadline_s=600, max_failures=1)


def weights_of(files: int, tier: str) -> str:
    """Hash of the weights of a set of files."""
    return cut(f"weights {files} {tier}".encode())[0].sha256


def release(counter: int, files: int | None = None, number: int | None = None) -> ReleaseRecord:
    """A release, with the files of release `files`."""
    named = counter if files is None else files
    parts = tuple(
        Artifact(
            tier=tier,
            student=SPEC.students[tier],
            template=cut(b"template")[0],
            weights=cut(f"weights {named} {tier}".encode())[0],
            golden=cut(f"golden {named} {tier}".encode())[0],
            parameters=1,
        )
        for tier in TIERS
    )
    manifest = msgspec.msgpack.encode(ReleaseManifest("f", counter, SPEC, 1.0, parts, {}))
    return ReleaseRecord(
        task=TASK, counter=counter, round=number, created_s=0.0, metrics={}, notes="", manifest=manifest
    )


@dataclass
class Dev:
    """A device: takes the highest counter that it is offered, and never a lower one.

    Attributes:
        temper: ``good``, ``fails``, ``silent``, ``slow``, ``mute`` (measures nothing) or ``lies`` (runs other bytes
            than the release has).
        lied: releases that it called committed with other bytes.
        fast: releases of which it said that it answers fast.
        asked: how often it was asked how fast it answers.
    """

    name: str
    tier: str
    running: int = 1
    tried: int = 1
    online: bool = True
    temper: str = "good"
    lied: set[int] = field(default_factory=set)
    fast: set[int] = field(default_factory=set)
    asked: int = 0


@dataclass
class RolloutScene:
    """Everything around a coordinator.

    Attributes:
        own: device → counter on its own release topic.
        fleet: counter on the fleet's release topic.
        audit: the log, as it is on the disk.
        making: releases that were asked for again and are not made yet.
        call: the fleet's retained round.
        round: as it is on the disk.
        work: what the round has begun and nobody has done yet.
    """

    count: int = 10
    rounds: RoundsConfig = NO_ROUNDS
    now: float = 1_000_000.0
    own: dict[str, int] = field(default_factory=dict)
    fleet: int = 0
    releases: dict[int, ReleaseRecord] = field(default_factory=dict)
    rollouts: dict[int, RolloutRecord] = field(default_factory=dict)
    progress: dict[tuple[int, str], ProgressRecord] = field(default_factory=dict)
    audit: list[AuditEntry] = field(default_factory=list)
    making: list[e.ReleaseAgain] = field(default_factory=list)
    call: m.Call | None = None
    round: RoundRecord | None = None
    work: list[e.Distil | e.MakeRelease] = field(default_factory=list)
    answers: list[str | None] = field(default_factory=list)
    _records: dict[DeviceId, DeviceRecord] = field(default_factory=dict)
    _reports: dict[tuple[int, DeviceId], bytes] = field(default_factory=dict)
    _count: Any = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.devices = {f"cam-{i}": Dev(f"cam-{i}", TIERS[i % 3]) for i in range(self.count)}
        self._new_core()
        self.store(1)
        for dev in self.devices.values():
            self.connect(dev)

    def _new_core(self) -> None:
        self.task = TaskRounds(TaskSetup(SPEC, PROXY, SAMPLES, self.rounds))
        self.core = Coordinator([self.task], FLEET)

    def restart(self) -> None:
        """Drop the server, and make one from what is on the disk."""
        self._new_core()
        held = [(self.releases[c], r, self._fates(c)) for c, r in self.rollouts.items()]
        serving = self.serving
        self.making.clear()
        self.work.clear()
        effects = self.task.resume(self.releases[serving], self._round(), self.now, rolling=self._rolling(held))
        effects += self.core.rollouts.restore(held, self.now)
        self.do([*effects, *self.core.restore(self._records.values(), [], self.now)])

    def _round(self) -> Round | None:
        if self.round is None:
            return None
        answered = {device: id_ for (number, device), id_ in self._reports.items() if number == self.round.number}
        return restored(self.round, answered, self.rounds.quorum)

    def _rolling(self, held: list[Held]) -> bool:
        open_ = [r for r, rollout, _ in held if rollout.state not in {"complete", "aborted"}]
        return self.round is not None and self.round.number in {r.round for r in open_}

    def _fates(self, counter: int) -> list[ProgressRecord]:
        return [p for (c, _), p in self.progress.items() if c == counter]

    @property
    def serving(self) -> int:
        """The fleet's release, as it is on the disk."""
        return max(c for c in self.releases if c not in self.rollouts or self._serves(self.rollouts[c]))

    @staticmethod
    def _serves(record: RolloutRecord) -> bool:
        return record.state == "complete" and record.whole_fleet

    def do(self, effects: list[e.Effect]) -> None:
        """Carry effects out: saves first, as the pump does."""
        self._save(effects)
        self._publish(effects)
        self._follow_round(effects)

    def _save(self, effects: list[e.Effect]) -> None:
        for effect in effects:
            match effect:
                case e.SaveRollout(record):
                    self.rollouts[record.counter] = record
                case e.SaveProgress(progress):
                    self.progress[progress.counter, progress.device] = progress
                case e.SaveAudit(entry):
                    self.audit.append(entry.after(self.audit[-1] if self.audit else None))
                case e.SaveOrder(order):
                    self.answers.append(order.answer)
                case e.SaveDevice(device):
                    self._records[device.device] = device
                case e.SaveRound(round_):
                    self.round = round_
                case e.SaveReport(report):
                    self._reports[report.round, report.device] = report.message_id
                case _:
                    pass

    def _publish(self, effects: list[e.Effect]) -> None:
        for effect in effects:
            match effect:
                case e.PublishRelease(_, counter):
                    self.fleet = counter
                case e.OfferRelease(_, counter, devices):
                    self.own |= dict.fromkeys(devices, counter)
                case e.WithdrawRelease(_, devices):
                    for device in devices:
                        self.own.pop(device, None)
                case Send(m.Measure(), device) if device is not None:
                    self.measure(self.devices[device])
                case e.ReleaseAgain():
                    self.making.append(effect)
                case _:
                    pass

    def _follow_round(self, effects: list[e.Effect]) -> None:
        for effect in effects:
            match effect:
                case e.PublishRound(call):
                    self.call = call
                case e.Distil() | e.MakeRelease():
                    self.work.append(effect)
                case e.CancelDistil(_, number):
                    self.work = [each for each in self.work if each.round != number]
                case _:
                    pass

    def store(self, counter: int, draft: RolloutRecord | None = None) -> None:
        """A release was made."""
        self.releases.setdefault(counter, release(counter))
        if draft is not None:
            self.rollouts[counter] = draft
        self.do(self.core.learn(ReleaseStored(self.releases[counter], draft), self.now))

    def draft(self, counter: int, plan: Plan = PLAN, *, starts: bool = False, number: int | None = None) -> None:
        """A release was made that a rollout is to bring to the fleet."""
        self.releases[counter] = release(counter, number=number)
        self.store(counter, RolloutRecord(task=TASK, counter=counter, plan=plan, by="policy", starts=starts))

    def order(self, counter: int, order: str, plan: Plan | None = None) -> str | None:
        """An operator orders; return the answer."""
        record = OrderRecord(task=TASK, counter=counter, order=order, by="ann", at_s=self.now, plan=plan, number=1)
        self.do(self.core.learn(Ordered(record), self.now))
        return self.answers[-1]

    def make(self) -> None:
        """Make what was asked for again."""
        for asked in self.making:
            fresh = max(self.releases) + 1
            files = decode_manifest(self.releases[asked.counter].manifest)
            found = next(n for n in range(1, fresh) if files.artifacts[0].weights.sha256 == weights_of(n, TIERS[0]))
            self.releases[fresh] = release(fresh, found)
            self.store(fresh)
        self.making.clear()

    def say(self, dev: Dev, body: m.Body) -> None:
        """Have a device say something."""
        number = next(self._count)
        header = m.Header("f", dev.name, number.to_bytes(16, "big"), b"boot....", number, self.now, True)
        self.do(self.core.handle(m.Envelope(header, body), self.now))

    def connect(self, dev: Dev) -> None:
        """A device comes, or comes back, and says what it runs."""
        dev.online = True
        runs = m.RunningTask(SPEC.name, SPEC.label_space, dev.tier, SPEC.students[dev.tier], dev.running)  # type: ignore[index]
        self.say(dev, m.Birth("board", "1", "ort", 4, 1 << 30, (runs,)))
        self.tell(dev, "committed", dev.running)

    def disconnect(self, dev: Dev) -> None:
        """A device is gone; its last will says so."""
        dev.online = False
        self.say(dev, m.Presence(online=False))

    def tell(self, dev: Dev, state: str, counter: int, reason: str = "") -> None:
        """Have a device say where a release stands."""
        runs = decode_manifest(self.releases[dev.running].manifest).artifact_for(dev.tier).weights.sha256  # type: ignore[arg-type]
        lies = dev.temper == "lies" and counter > 1
        if lies:
            dev.lied.add(counter)
        bytes_of = "0" * 64 if lies else runs
        self.say(dev, m.Deployment(SPEC.name, counter, state, dev.running, bytes_of, reason))

    def measure(self, dev: Dev) -> None:
        """Have a device that is asked measure how fast it answers, and say so."""
        dev.asked += 1
        if not dev.online or dev.temper in {"silent", "mute"}:
            return
        if dev.temper != "slow":
            dev.fast.add(dev.running)
        p95 = 90.0 if dev.temper == "slow" else 10.0
        self.say(dev, m.Measured(SPEC.name, bytes(16), dev.running, "cpu", 1000, {"p95_ms": p95}))

    def act(self, dev: Dev) -> None:
        """A device that is online converges to the highest counter on its two topics, in its own way."""
        wanted = max(self.fleet, self.own.get(dev.name, 0))
        if not dev.online or wanted <= dev.tried or dev.temper == "silent":
            return
        dev.tried = wanted
        if dev.temper == "fails":
            self.tell(dev, "rolled-back", wanted, "golden answers differ")
            return
        dev.running = wanted
        self.tell(dev, "committed", wanted)
        if dev.temper == "slow":
            self.say(dev, m.DeviceState(SPEC.name, "idle", wanted, {}, {"latency_p95_ms": 90.0}))

    def act_all(self) -> None:
        """Every device acts."""
        for dev in self.devices.values():
            self.act(dev)

    def wait(self, seconds: float = 0.0) -> None:
        """Let time pass."""
        self.now += seconds
        self.do(self.core.tick(self.now))

    def rollout(self, counter: int) -> Rollout:
        """A rollout, as the server holds it."""
        return self.core.rollouts._held[TASK][counter].rollout

    def state(self, counter: int) -> str:
        """State of a rollout, as it is on the disk."""
        return self.rollouts[counter].state

    def running(self, counter: int) -> list[str]:
        """Devices that run a release."""
        return [dev.name for dev in self.devices.values() if dev.running == counter]

    def rollout_weights(self, counter: int) -> dict[str, str]:
        """Tier → hash of the weights of a release."""
        return {a.tier: a.weights.sha256 for a in decode_manifest(self.releases[counter].manifest).artifacts}
