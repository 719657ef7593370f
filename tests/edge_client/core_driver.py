"""Drives a `DeviceCore` with a fake clock and answers its effects as a device would; for the tests of the brain."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from edge_client import effects as e
from edge_client.core import DeviceCore, Profile, Remembered
from edge_client.plan_effects import Planned
from edge_models.tasks import load_task
from edge_protocol import messages as m
from edge_protocol.arrays import pack
from edge_protocol.blobs import cut
from edge_protocol.effects import Send
from edge_protocol.ids import SERVER, DeviceId
from edge_protocol.manifest import Artifact, Delta, ReleaseManifest, encode_manifest
from edge_protocol.task import TaskSpec, Tier
from edge_protocol.trust import Proof
from tests.fakes.clock import FakeClock
from tests.fakes.small_centre import FLEET

SPEC = load_task("vehicle")
PROOF = Proof(roots=(), targets=b"", releases=b"")
T = TypeVar("T")


def blob(text: str) -> Any:
    """A named blob."""
    return cut(text.encode())[0]


def artifact(counter: int, tier: Tier = "nano", base: int = 0, variant: str = "") -> Artifact:
    """Files of a release; the template stays the same; with `base`, a delta from that release."""
    if variant:
        return Artifact(tier, "depthwise", *(blob(f"{variant} {each} {counter}") for each in "twg"), 1, (), variant)
    deltas = (Delta(blob(f"weights {base}").sha256, blob(f"delta {base} to {counter}")),) if base else ()
    files = blob("template"), blob(f"weights {counter}"), blob(f"golden {counter}")
    return Artifact(tier, "depthwise", *files, 1, deltas)


def signed(
    counter: int,
    *,
    tier: Tier = "nano",
    spec: TaskSpec = SPEC,
    fleet: str = FLEET,
    base: int = 0,
    variants: tuple[str, ...] = (),
) -> e.Offered:
    """A proven release of small files."""
    files = (artifact(counter, tier, base), *(artifact(counter, tier, variant=each) for each in variants))
    manifest = ReleaseManifest(fleet, counter, spec, 1.0, files, {})
    return e.Offered(encode_manifest(manifest), manifest, PROOF)


def call(number: int, release: int, *, collecting: bool = True, spec: TaskSpec = SPEC) -> m.RoundCall:
    """A round of the vehicle task."""
    return m.RoundCall(spec.name, spec.label_space, number, release, blob(f"proxy {number}"), 4e9, collecting)


def report(number: int, release: int, samples: int = 3) -> m.KnowledgeReport:
    """A report that says nothing in particular."""
    zero = pack(np.zeros(samples, np.uint8))
    votes = m.ClassVotes(zero, zero, zero, pack(np.ones(6, np.uint8)))
    return m.KnowledgeReport(
        SPEC.name, SPEC.label_space, number, release, blob(f"proxy {number}").sha256, samples, votes
    )


@dataclass
class Driver:
    """A core, and everything it wanted done.

    Attributes:
        effects: all of them, in order.
    """

    remembered: Remembered = field(default_factory=Remembered)
    variants: tuple[str, ...] = ()
    prototypes: bool = False
    effects: list[e.Effect] = field(default_factory=list)
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        who = Profile(
            fleet=FLEET,
            device=DeviceId("cam-1"),
            tier="nano",
            spec=SPEC,
            report_interval_s=10,
            variants=self.variants,
            prototypes=self.prototypes,
        )
        self.core = DeviceCore(who, self.remembered, self.clock.now)

    def say(self, body: m.Body | e.Offered) -> list[e.Effect]:
        """A message from the server; an offer as the gate lets it through."""
        if isinstance(body, e.Offered):
            return self.do(body)
        header = m.Header(FLEET, SERVER, os.urandom(16), b"centre00", 1, 1.7e9, True)
        return self.do(m.Envelope(header, body))

    def do(self, event: e.Event) -> list[e.Effect]:
        """Feed an event; return what it led to."""
        return self._kept(self.core.handle(event, self.clock.now))

    def wait(self, seconds: float) -> list[e.Effect]:
        """Let time pass, and tick."""
        self.clock.advance(seconds)
        return self._kept(self.core.tick(self.clock.now))

    def install(self, counter: int) -> None:
        """Bring a release all the way."""
        self.say(signed(counter))
        self.fetch(counter)
        self.do(e.Checked(counter))
        self.do(e.Trained(self.last(e.Train).job, None))
        self.do(Planned(counter))
        self.do(e.Passed(counter))
        self.do(e.Installed(counter))

    def fetch(self, counter: int, variant: str = "") -> None:
        """Everything of a release arrives."""
        files = artifact(counter, variant=variant)
        for ref in (files.template, files.weights, files.golden):
            self.do(e.Fetched(ref.sha256))

    def all(self, kind: type[T]) -> list[T]:
        """Effects of one kind so far."""
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def last(self, kind: type[T]) -> T:
        """The newest effect of a kind."""
        return self.all(kind)[-1]

    def sent(self, kind: type[T]) -> list[T]:
        """Bodies of one kind sent so far."""
        return [effect.body for effect in self.all(Send) if isinstance(effect.body, kind)]

    def until(self, condition: Callable[[], object]) -> None:
        """Tick through the deadlines until something holds."""
        for _ in range(50):
            if condition():
                return
            self.clock.now = max(self.clock.now, self.core.next_deadline())
            self._kept(self.core.tick(self.clock.now))
        raise AssertionError("it never came to that")

    def _kept(self, effects: list[e.Effect]) -> list[e.Effect]:
        self.effects += effects
        return effects
