"""What the coordinator's tests are played with: one small task, devices that speak, and results of a distiller."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
import numpy as np

from broker_server import effects as e
from broker_server.config import FleetConfig, RoundsConfig
from broker_server.coordinator import Coordinator
from broker_server.distil_job import DistilResult
from broker_server.events import Distilled, ReleaseStored
from broker_server.judge import JudgeRules
from broker_server.records import ReleaseRecord
from broker_server.rounds import Round
from broker_server.task_rounds import TaskRounds, TaskSetup
from edge_protocol import messages as m
from edge_protocol.arrays import pack
from edge_protocol.blobs import BlobRef, cut
from edge_protocol.effects import Drop, Send
from edge_protocol.manifest import ReleaseManifest, decode_manifest
from edge_protocol.task import TIERS, ImageInput, TaskSpec

T = TypeVar("T")
SPEC = TaskSpec(
    name="vehicle",
    title="Vehicles",
    kind="classify",
    labels=("car", "truck"),
    input=ImageInput(height=8, width=8, mean=(0.5,) * 3, std=(0.2,) * 3),
    students={"nano": "a", "small": "b", "base": "c"},
    plugin="edge_models.kinds.classify",
)
TASK = SPEC.task_id
PROXY, _ = cut(b"proxies")
SAMPLES = 4
BOOT = b"first..."
ROUNDS = RoundsConfig(limit=2, quorum=2, wait_for=3, deadline_s=60, pause_s=5)
FLEET = FleetConfig(stale_after_s=100, offline_after_s=100, max_devices=10)


def votes(samples: int = SAMPLES, classes: int = 2) -> m.ClassVotes:
    """Votes for the first class."""
    column = pack(np.zeros(samples, np.uint8))
    return m.ClassVotes(column, column, column, pack(np.ones(classes, np.uint8)))


def release(counter: int, round_number: int | None = 0) -> ReleaseRecord:
    """A release as the store tells of it."""
    return ReleaseRecord(
        task=TASK, counter=counter, round=round_number, created_s=0.0, metrics={}, notes="", manifest=b""
    )


def result(current: float | None, candidate: float) -> DistilResult:
    """A distiller's result with these accuracies."""
    scores = {"candidate": {"accuracy": candidate}} | ({} if current is None else {"current": {"accuracy": current}})
    return DistilResult(
        headline="accuracy",
        higher_is_better=True,
        metrics=dict.fromkeys(TIERS, scores),
        teacher={},
        devices={},
        parameters=dict.fromkeys(TIERS, 1),
    )


def of(effects: list[e.Effect], kind: type[T]) -> list[T]:
    """The effects of a kind."""
    return [effect for effect in effects if isinstance(effect, kind)]


def drops(effects: list[e.Effect]) -> list[str]:
    """Reasons of what was dropped."""
    return [drop.reason for drop in of(effects, Drop)]


def acks(effects: list[e.Effect]) -> list[tuple[str | None, bool, str]]:
    """To whom, whether accepted, and why not."""
    return [(s.to, s.body.accepted, s.body.reason) for s in of(effects, Send) if isinstance(s.body, m.Ack)]


@dataclass
class Scene:
    """A coordinator of one task, and a voice for devices."""

    rounds: RoundsConfig = ROUNDS
    fleet: FleetConfig = FLEET
    judge: JudgeRules = field(default_factory=JudgeRules)
    now: float = 1000.0
    _count: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.task = TaskRounds(TaskSetup(SPEC, PROXY, SAMPLES, self.rounds, self.judge))
        self.core = Coordinator([self.task], self.fleet)

    @property
    def round(self) -> Round:
        """The task's newest round."""
        assert self.task.round is not None
        return self.task.round

    def header(self, device: str, boot: bytes = BOOT, message_id: bytes | None = None) -> m.Header:
        """The next header of a device."""
        number = next(self._count)
        return m.Header("f", device, message_id or number.to_bytes(16, "big"), boot, number, self.now, True)

    def say(self, device: str, body: m.Body, **header: bytes) -> list[e.Effect]:
        """Have a device say something."""
        return self.core.handle(m.Envelope(self.header(device, **header), body), self.now)

    def birth(self, device: str, running: int = 0, space: str = SPEC.label_space, **header: bytes) -> list[e.Effect]:
        """Have a device be born."""
        runs = m.RunningTask(SPEC.name, space, "nano", "a", running)
        return self.say(device, m.Birth("board", "1", "ort", 4, 1 << 30, (runs,)), **header)

    def deployed(self, device: str, counter: int, state: str = "committed", **header: bytes) -> list[e.Effect]:
        """Have a device say where a release stands."""
        return self.say(device, m.Deployment(SPEC.name, counter, state, counter, ""), **header)

    def report(self, device: str, *, message_id: bytes | None = None, **changed: object) -> list[e.Effect]:
        """Have a device report, with fields changed."""
        fields: dict[str, object] = {
            "task": SPEC.name,
            "label_space": SPEC.label_space,
            "round": self.round.number,
            "release": 1,
            "proxy": PROXY.sha256,
            "examples": 10,
            "votes": votes(),
        }
        body = m.KnowledgeReport(**(fields | changed))  # type: ignore[arg-type]
        return self.say(device, body, **({"message_id": message_id} if message_id else {}))

    def first_release(self) -> list[e.Effect]:
        """Run round 0 to its end."""
        self.core.tick(self.now)
        self.core.learn(Distilled(TASK, 0, result(None, 0.5)), self.now)
        return self.core.learn(ReleaseStored(release(1)), self.now)

    def collecting(self, devices: int = 3) -> list[e.Effect]:
        """Go on to a called round 1 with these devices ready; return what the last of them set off."""
        self.first_release()
        self.now += self.rounds.pause_s
        self.core.tick(self.now)
        effects: list[e.Effect] = []
        for number in range(devices):
            self.birth(f"cam-{number}")
            effects = self.deployed(f"cam-{number}", 1)
        return effects


def huge_manifest(manifest: bytes, counter: int = 1) -> ReleaseManifest:
    """The same release with a payload in 10,000 chunks, whose hashes alone exceed the wire's bound."""
    old = decode_manifest(manifest)
    digests = bytes(32 * 10_000)
    first = msgspec.structs.replace(old.artifacts[0], weights=BlobRef("0" * 64, 10_000, 1, digests))
    return msgspec.structs.replace(old, counter=counter, artifacts=(first, *old.artifacts[1:]))
