"""The smallest centre a device can live with: real messages, real artifacts, signed releases, rounds, answers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from queue import Empty, Queue
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from broker_server.last_reports import LastReports
from edge_models.tasks import load_task, plugin_of
from edge_protocol import messages as m
from edge_protocol.blobs import BlobRef, cut
from edge_protocol.codec import decode, encode, kind_of
from edge_protocol.delta import make_delta
from edge_protocol.ids import SERVER, DeviceId, FleetId
from edge_protocol.manifest import Artifact, Delta, ReleaseManifest, encode_manifest
from edge_protocol.task import TaskSpec, Tier
from edge_protocol.topics import Topics, Uplink
from edge_protocol.transport.base import Received
from edge_protocol.transport.memory import MemoryBroker, MemoryTransport
from edge_protocol.trunks import TrunkAsk
from tests.fakes.signed_fleet import SignedFleet

FLEET = FleetId("sim")


@lru_cache(maxsize=1)
def signed_fleet() -> SignedFleet:
    """Who signs for every small centre of this process."""
    return SignedFleet()


def trusted_root() -> str:
    """What their devices are commissioned with."""
    return signed_fleet().root.decode()


@dataclass(frozen=True)
class Files:
    """The files of one tier's artifact."""

    template: bytes
    weights: bytes
    golden: bytes
    parameters: int = 1


@lru_cache(maxsize=8)
def artifact_files(task: str = "vehicle", tier: Tier = "nano", seed: int = 0) -> Files:
    """A real, untrained student as the exporter writes it."""
    from edge_models.students import build_student  # noqa: PLC0415 - loads torch
    from export import build_artifact  # noqa: PLC0415

    spec = load_task(task)
    x = np.random.default_rng(seed).normal(size=(4, *spec.input.shape)).astype(np.float32)
    built = build_artifact(spec, tier, build_student(spec, tier, seed=seed), x)
    return Files(built.template, built.weights, built.golden, built.parameters)


@lru_cache(maxsize=1)
def int8_files() -> Files:
    """The INT8 variant for CPUs of `artifact_files`, whatever its speed and accuracy."""
    from export.graph import inlined  # noqa: PLC0415 - loads onnx
    from export.passes.base import apply  # noqa: PLC0415
    from export.passes.int8 import to_int8  # noqa: PLC0415
    from export.passes.ship import to_artifact  # noqa: PLC0415
    from export.passes.simplify import simplify  # noqa: PLC0415

    plain = artifact_files()
    x = np.random.default_rng(0).normal(size=(8, *load_task("vehicle").input.shape)).astype(np.float32)
    full = inlined(plain.template, plain.weights)
    made, _ = apply([simplify, to_int8("cpu", "minmax", x)], full)
    built = to_artifact(full, made, x, plain.parameters)
    return Files(built.template, built.weights, built.golden, built.parameters)


def spoilt(files: Files, *, weights: float | None = None, golden: float | None = None) -> Files:
    """Files of which a tensor was set to a value: NaN weights, or golden answers that nothing gives."""
    changed = {}
    for name, value in (("weights", weights), ("golden", golden)):
        if value is not None:
            tensors: dict[str, Any] = {key: array.copy() for key, array in load(getattr(files, name)).items()}
            key = "logits" if name == "golden" else min(k for k in tensors if tensors[k].dtype == np.float16)
            tensors[key][...] = value
            changed[name] = save(tensors)
    return Files(**{"template": files.template, "weights": files.weights, "golden": files.golden, **changed})


def manifest_of(
    counter: int,
    files: Mapping[Tier, Files],
    *,
    spec: TaskSpec,
    fleet: str = FLEET,
    base: Files | None = None,
    int8: Files | None = None,
) -> tuple[ReleaseManifest, dict[BlobRef, list[bytes]]]:
    """A manifest, and the chunks of every blob that it names; with `base`, deltas from its weights too.

    With `int8`, each tier has it as its variant for CPUs.
    """
    blobs: dict[str, tuple[BlobRef, list[bytes]]] = {}
    artifacts = []
    variants = [(tier, "int8-cpu", int8) for tier in files if int8]
    for tier, variant, each in [*((tier, "", each) for tier, each in files.items()), *variants]:
        refs = []
        for data in (each.template, each.weights, each.golden):
            ref, chunks = cut(data, 16 * 1024)
            blobs[ref.sha256] = (ref, chunks)
            refs.append(ref)
        deltas: tuple[Delta, ...] = ()
        if base is not None and not variant and (made := make_delta(base.weights, each.weights)):
            ref, chunks = cut(made, 16 * 1024)
            blobs[ref.sha256] = (ref, chunks)
            deltas = (Delta(cut(base.weights)[0].sha256, ref),)
        template, weights, golden = refs
        named = template, weights, golden
        artifacts.append(Artifact(tier, spec.students[tier], *named, each.parameters, deltas, variant))
    manifest = ReleaseManifest(fleet, counter, spec, 1.0, tuple(artifacts), {"accuracy": 0.5})
    return manifest, dict(blobs.values())


@dataclass
class SmallCentre:
    """Runs in turns on a `MemoryBroker`.

    Attributes:
        broker: the broker.
        heard: every body that a device sent, in order; coded reports opened.
        coded: the coded reports as they came.
        last_reports: what it has of each device; cleared, it knows no base any more.
        deaf: message kinds that are not acknowledged.
    """

    broker: MemoryBroker
    heard: list[m.Body] = field(default_factory=list)
    headers: list[m.Header] = field(default_factory=list)
    deaf: set[str] = field(default_factory=set)
    coded: list[m.CodedReport] = field(default_factory=list)
    last_reports: LastReports = field(default_factory=LastReports)
    _proxies: list[str] = field(default_factory=list)
    _answers: dict[bytes, tuple[m.Body, str]] = field(default_factory=dict)
    _sequence: int = 0

    def __post_init__(self) -> None:
        self.topics = Topics(FLEET)
        self.inbox: Queue[object] = Queue()
        self.link = MemoryTransport(self.broker, self.inbox)
        self.link.subscribe(self.topics.every_uplink)
        self.link.start()

    def release(
        self,
        counter: int,
        files: Mapping[Tier, Files],
        *,
        task: str = "vehicle",
        base: Files | None = None,
        listed: bool = True,
        int8: Files | None = None,
    ) -> m.ReleaseOffer:
        """Publish a release: chunks, signed metadata that list it (or do not), manifest; deltas, a variant."""
        spec = load_task(task)
        manifest, blobs = manifest_of(counter, files, spec=spec, base=base, int8=int8)
        for ref, chunks in blobs.items():
            self.blob(ref, chunks)
        offer = m.ReleaseOffer(signed_fleet().release(manifest) if listed else encode_manifest(manifest))
        self.metadata(signed_fleet().files())
        self.say(self.topics.release(spec.task_id), offer, retain=True)
        return offer

    def metadata(self, files: Mapping[str, bytes]) -> None:
        """Publish signed metadata."""
        for name, data in files.items():
            self.link.publish(self.topics.metadata(name), data, retain=True)

    def blob(self, ref: BlobRef, chunks: list[bytes]) -> None:
        """Publish a blob's chunks."""
        for index, chunk in enumerate(chunks):
            self.link.publish(self.topics.chunk(ref.sha256, index), chunk, retain=True)

    def call(
        self,
        number: int,
        release: int,
        *,
        task: str = "vehicle",
        proxies: int = 24,
        collecting: bool = True,
        trunk: TrunkAsk | None = None,
    ) -> m.RoundCall:
        """Open (or close) a round with a small proxy set."""
        spec = load_task(task)
        raw = plugin_of(spec).simulate(spec, np.random.default_rng(99), proxies).raw
        ref, chunks = cut(save({"raw": np.ascontiguousarray(raw)}), 16 * 1024)
        self.blob(ref, chunks)
        self._proxies.append(ref.sha256)
        call = m.RoundCall(task, spec.label_space, number, release, ref, 4e9, collecting, trunk)
        self.say(self.topics.round(spec.task_id), call, retain=True)
        return call

    def ask(self, number: int, release: int, *, task: str = "vehicle", collecting: bool = True) -> m.PrototypeCall:
        """Open (or close) a round that asks for class means."""
        spec = load_task(task)
        call = m.PrototypeCall(task, spec.label_space, number, release, 4e9, collecting)
        self.say(self.topics.round(spec.task_id), call, retain=True)
        return call

    def tell(self, device: str, body: m.Ack | m.Rebirth | m.Label | m.Measure) -> None:
        """Send one device a message."""
        self.say(self.topics.down(DeviceId(device), kind_of(body)), body)

    def say(self, topic: str, body: m.Body, *, retain: bool = False) -> None:
        """Publish a message as the server."""
        self.link.publish(topic, encode(self._header(), body), retain=retain)

    def turn(self) -> None:
        """Hear what devices said, and acknowledge what must not be lost."""
        while True:
            try:
                event = self.inbox.get_nowait()
            except Empty:
                return
            if not isinstance(event, Received):
                continue
            topic = self.topics.parse(event.topic)
            kind = topic.kind if isinstance(topic, Uplink) else "online"
            envelope = decode(event.payload, kind=kind, fleet=FLEET)  # type: ignore[arg-type]
            body, reason = envelope.body, ""
            if isinstance(body, m.CodedReport):
                self.coded.append(body)
                body, reason = self._opened(body, envelope.header)
            self.heard.append(body)
            self.headers.append(envelope.header)
            durable = isinstance(body, m.Report | m.IntervalResult | m.Deployment | m.Measured)
            if durable and kind not in self.deaf:
                self.tell(envelope.header.sender, m.Ack(envelope.header.message_id, not reason, reason))

    def of(self, kind: type[Any]) -> list[Any]:
        """Everything of one kind that was heard."""
        return [body for body in self.heard if isinstance(body, kind)]

    def _opened(self, report: m.CodedReport, header: m.Header) -> tuple[m.Body, str]:
        """A coded report as the server opens it, or as it came with the reason why it cannot be; the same twice."""
        if header.message_id not in self._answers:
            device = DeviceId(header.sender)
            known = (sha256 for sha256 in self._proxies if sha256.startswith(report.proxy.hex()))
            proxy = next(known, report.proxy.hex().ljust(64, "0"))
            opened, reason = self.last_reports.open(report, device, load_task(report.task), proxy, report.round)
            if opened is not None:
                self.last_reports.keep(device, opened)
            self._answers[header.message_id] = opened or report, reason
        return self._answers[header.message_id]

    def _header(self) -> m.Header:
        self._sequence += 1
        return m.Header(FLEET, SERVER, os.urandom(16), b"centre00", self._sequence, 1.7e9, True)
