"""A fleet in one process: devices without a model that speak the real messages through the real codec.

Each holds what a device holds on the wire: an outbox that sends again until acknowledged, a pull of the chunks it
lacks, the newest release and the open round. What it knows is a function given by the test.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, Queue
from typing import Any

import numpy as np

from edge_protocol import messages as m
from edge_protocol.arrays import pack
from edge_protocol.blobs import Pull
from edge_protocol.codec import decode, encode, kind_of
from edge_protocol.ids import DeviceId, FleetId
from edge_protocol.manifest import ReleaseManifest, decode_manifest
from edge_protocol.task import TIERS, TaskSpec
from edge_protocol.topics import ChunkTopic, Downlink, ReleaseTopic, RoundTopic, Topics
from edge_protocol.transport.base import Connected, LastWill, Received, Transport
from edge_protocol.transport.memory import MemoryBroker, MemoryTransport
from edge_protocol.trunks import TrunkChange
from tests.fakes.coded_answers import CodedAnswers

RESEND_S = 5.0
Connect = Callable[[str, "Queue[Any]", LastWill], Transport]
Votes = m.ClassVotes | m.ForecastVotes
Knowledge = Callable[[DeviceId, m.RoundCall], "Votes | None"]
"""What a device answers to a call; None when it says nothing."""


@dataclass
class Faults:
    """Loses, repeats and reorders messages between devices and server; retained state comes through."""

    seed: int = 0
    lose: float = 0.0
    repeat: float = 0.0
    delay: float = 0.0
    happened: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._held: dict[str, bytes] = {}

    def __call__(self, topic: str, payload: bytes) -> list[bytes]:
        """Say what arrives instead of this message; a delayed one comes after the next on its topic."""
        if "/up/" not in topic and "/down/" not in topic:
            return [payload]
        late = [self._held.pop(topic)] if topic in self._held else []
        shares = (self.lose, self.repeat, self.delay)
        kinds = ("lose", "repeat", "delay", "none")
        kind = self._random.choices(kinds, (*shares, 1 - sum(shares)))[0]
        self.happened[kind] += 1
        if kind == "delay":
            self._held[topic] = payload
        return [payload] * {"lose": 0, "repeat": 2, "delay": 0, "none": 1}[kind] + late


class SimulatedDevice:
    """One device on a `MemoryBroker`."""

    def __init__(self, name: str, tier: str, fleet: FleetSimulator) -> None:
        self.name, self.tier, self.fleet = DeviceId(name), tier, fleet
        self.inbox: Queue[Any] = Queue()
        self.boot_id = fleet.random.randbytes(8)
        self.running, self.offered = 0, 0
        self.outbox: dict[bytes, tuple[str, bytes]] = {}
        self.told = CodedAnswers()
        self.acks: Counter[tuple[bool, str]] = Counter()
        self.births = self.reports = 0
        self._sequence, self._resend_at = 0, 0.0
        self._pulls: dict[str, Pull] = {}
        self._manifest: ReleaseManifest | None = None
        self._answered = self._failed = 0
        self._due: tuple[float, m.Call] | None = None
        self._newest: m.Call | None = None
        will = LastWill(fleet.topics.online(self.name), encode(self._header(), m.Presence(False)))
        self.transport = fleet.connect(self.name, self.inbox, will)

    def start(self) -> None:
        """Subscribe to what concerns this device, and connect."""
        topics, task = self.fleet.topics, self.fleet.spec.task_id
        down = [topics.down(self.name, kind) for kind in ("ack", "command")]
        self.transport.subscribe([*down, *topics.desired(self.name, task)])
        self.transport.start()

    def step(self) -> int:
        """Take everything from the inbox, then send what is due; return how many events were taken."""
        taken = 0
        while True:
            try:
                event = self.inbox.get_nowait()
            except Empty:
                break
            taken += 1
            if isinstance(event, Connected):
                self._hello()
            elif isinstance(event, Received):
                self._take(event)
        self._answer_when_due()
        self._send_again()
        return taken

    def say(self, body: m.Body, *, durable: bool = False) -> bytes:
        """Send a message; return its id."""
        header = self._header()
        topic = self.fleet.topics.up(self.name, kind_of(body))
        payload = encode(header, body)
        if durable:
            self.outbox[header.message_id] = (topic, payload)
            self._resend_at = self.fleet.clock() + RESEND_S
        self.transport.publish(topic, payload)
        return header.message_id

    def _header(self) -> m.Header:
        fleet, self._sequence = self.fleet, self._sequence + 1
        message_id = fleet.random.randbytes(16)
        return m.Header(fleet.topics.fleet, self.name, message_id, self.boot_id, self._sequence, fleet.clock(), True)

    def _hello(self) -> None:
        online = encode(self._header(), m.Presence(True))
        self.transport.publish(self.fleet.topics.online(self.name), online, retain=True)
        self._birth()
        for topic, payload in self.outbox.values():
            self.transport.publish(topic, payload)

    def _birth(self) -> None:
        spec = self.fleet.spec
        runs = m.RunningTask(spec.name, spec.label_space, self.tier, spec.students[self.tier], self.running)
        self.births += 1
        self.say(m.Birth("simulated", "1", "none", 4, 1 << 30, (runs,)))

    def _take(self, event: Received) -> None:
        match self.fleet.topics.parse(event.topic):
            case Downlink(_, kind):
                self._obey(decode(event.payload, kind=kind, fleet=self.fleet.topics.fleet))  # type: ignore[arg-type]
            case ReleaseTopic() if event.payload:
                body = decode(event.payload, kind="release", fleet=self.fleet.topics.fleet).body
                assert isinstance(body, m.ReleaseOffer)
                self._offer(self.fleet.open(body))
            case RoundTopic() if event.payload:
                body = decode(event.payload, kind="round", fleet=self.fleet.topics.fleet).body
                assert isinstance(body, m.RoundCall | m.PrototypeCall)
                self._called(body)
            case ChunkTopic(sha256, index) if event.payload:
                self._chunk(event.topic, sha256, index, event.payload)
            case _:
                pass

    def _obey(self, envelope: m.Envelope) -> None:
        asked, body = envelope.header.message_id, envelope.body
        if isinstance(body, m.Ack):
            self.acks[body.accepted, body.reason] += 1
            self.outbox.pop(body.message_id, None)
            again = self.told.answered(body)
            if again is not None:
                self._report(again)
        elif isinstance(body, m.Rebirth):
            self._birth()
        elif isinstance(body, m.Measure):
            self.say(
                self.fleet.measured(self.name, m.Measured(body.task, asked, self.running, "", 0, {})), durable=True
            )

    def _offer(self, manifest: ReleaseManifest) -> None:
        if manifest.counter <= self.offered:
            return
        self.offered, self._manifest = manifest.counter, manifest
        artifact = manifest.artifact_for(self.tier)  # type: ignore[arg-type]
        refs = (artifact.template, artifact.weights, artifact.golden) if self.fleet.fetch else ()
        self._pulls = {ref.sha256: Pull(ref) for ref in refs}
        for pull in self._pulls.values():
            self.transport.subscribe(self.fleet.topics.chunk(pull.ref.sha256, i) for i in pull.missing())
        self._commit_when_complete()

    def _chunk(self, topic: str, sha256: str, index: int, data: bytes) -> None:
        pull = self._pulls.get(sha256)
        if pull is not None and pull.take(index, data):
            self.transport.unsubscribe([topic])
            self._commit_when_complete()

    def _commit_when_complete(self) -> None:
        assert self._manifest is not None
        if self.running == self.offered or not all(pull.complete for pull in self._pulls.values()):
            return
        temper = self.fleet.temper(self.name, self.offered)
        if temper == "fails" and self._failed != self.offered:
            self._failed = self.offered
            told = m.Deployment(self.fleet.spec.name, self.offered, "rolled-back", self.running, "", "golden differs")
            self.say(told, durable=True)
        if temper == "good":
            self.running = self.offered
            self._tell_running()
            self.say(m.DeviceState(self.fleet.spec.name, "idle", self.running, {}, {"latency_p95_ms": 5.0}))

    def _tell_running(self) -> None:
        assert self._manifest is not None
        weights = self._manifest.artifact_for(self.tier).weights.sha256  # type: ignore[arg-type]
        told = m.Deployment(self.fleet.spec.name, self.running, "committed", self.running, weights)
        self.say(told, durable=True)

    def _called(self, call: m.Call) -> None:
        self._newest = call
        due = self._due[1] if self._due else None
        begun = isinstance(due, m.RoundCall) and self.running == due.release
        if due is not None and not begun and (not call.open or call.number > due.number):
            self._due = None
        self._take_up()

    def _take_up(self) -> None:
        """Begin the newest round, unless an answer on proxies that has begun is to be ended first."""
        call = self._newest
        if self._due is None and call is not None and call.open and call.number > self._answered:
            self._due = (self.fleet.clock() + self.fleet.patience(self.name), call)

    def _answer_when_due(self) -> None:
        if self._due is not None and self.running > self._due[1].release:
            self._due = None
            self._take_up()
        if self._due is None or self.fleet.clock() < self._due[0] or self.running != self._due[1].release:
            return
        call, self._due = self._due[1], None
        self._answered = call.number
        self._take_up()
        if isinstance(call, m.PrototypeCall):
            told = self.fleet.class_means(self.name, call)
            self.reports += told is not None
            if told is not None:
                self.say(told, durable=True)
            return
        votes = self.fleet.knowledge(self.name, call)
        if votes is not None:
            self.reports += 1
            report = m.KnowledgeReport(
                call.task,
                call.label_space,
                call.number,
                call.release,
                call.proxy.sha256,
                100,
                votes,
                self.fleet.trunk(self, call),
            )
            self._report(report)

    def _report(self, report: m.KnowledgeReport) -> None:
        self.told.sent(self.say(self.told.code(report), durable=True), report)

    def _send_again(self) -> None:
        if self.fleet.clock() < self._resend_at:
            return
        self._resend_at = self.fleet.clock() + RESEND_S
        for topic, payload in self.outbox.values():
            self.transport.publish(topic, payload)
        for pull in self._pulls.values():
            if not pull.complete:
                self.say(m.Need(pull.ref.sha256, tuple(pull.missing()[:256])))


class FleetSimulator:
    """Many simulated devices of one task.

    Args:
        connect: makes a device's link from its name, its inbox and its last will.
        spec: their task.
        knowledge: what they answer.
        class_means: what they answer when they are asked for class means.
        patience: seconds each takes to answer a call; an answer on proxies that has begun is given after its round too.
        fetch: whether they pull every chunk of a release, or trust that it is there.
        measured: fills in what a device that is asked to measure says.
        trunk: how its trunk changed; None for a device that does not say.
        temper: what becomes of a release on a device: ``good``, ``fails`` its probation, or ``silent``.
    """

    def __init__(
        self,
        connect: Connect,
        spec: TaskSpec,
        clock: Callable[[], float],
        count: int,
        *,
        knowledge: Knowledge = lambda *_: None,
        class_means: Callable[[DeviceId, m.PrototypeCall], m.PrototypeReport | None] = lambda *_: None,
        patience: Callable[[DeviceId], float] = lambda _: 0.0,
        fetch: bool = True,
        temper: Callable[[DeviceId, int], str] = lambda *_: "good",
        measured: Callable[[DeviceId, m.Measured], m.Measured] = lambda _, empty: empty,
        trunk: Callable[[SimulatedDevice, m.RoundCall], TrunkChange | None] = lambda *_: None,
        fleet: str = "sim",
        seed: int = 0,
    ) -> None:
        self.connect, self.spec, self.clock, self.knowledge = connect, spec, clock, knowledge
        self.patience, self.fetch, self.temper, self.measured = patience, fetch, temper, measured
        self.class_means, self.trunk = class_means, trunk
        self.topics = Topics(FleetId(fleet))
        self.random = random.Random(seed)
        self._opened: dict[bytes, ReleaseManifest] = {}
        self.devices = [SimulatedDevice(f"dev-{i}", TIERS[i % len(TIERS)], self) for i in range(count)]

    def open(self, offer: m.ReleaseOffer) -> ReleaseManifest:
        """Read a manifest and believe it; the same bytes once for the whole fleet."""
        if offer.manifest not in self._opened:
            self._opened[offer.manifest] = decode_manifest(offer.manifest)
        return self._opened[offer.manifest]

    def start(self) -> None:
        """Connect every device."""
        for device in self.devices:
            device.start()

    def close(self) -> None:
        """Disconnect every device."""
        for device in self.devices:
            device.transport.close()

    def step(self) -> int:
        """Let every device do what it has to do; return how many events were taken."""
        return sum(device.step() for device in self.devices)


def in_memory(broker: MemoryBroker) -> Connect:
    """Links on a broker in this process."""
    return lambda _, inbox, will: MemoryTransport(broker, inbox, will)


def class_votes(labels: np.ndarray[Any, np.dtype[np.int64]], classes: int) -> m.ClassVotes:
    """Votes that name these labels (N,), all equally sure."""
    n = len(labels)
    return m.ClassVotes(
        classes=pack(labels.astype(np.uint8)),
        confidence=pack(np.full(n, 2, np.uint8)),
        density=pack(np.full(n, 5, np.uint8)),
        held=pack(np.ones(classes, np.uint8)),
    )
