"""A round through the coordinator: births, commitments and reports of a whole fleet, CPU seconds and how they grow.

Real: messages, codec, coordinator, database (SQLite, one commit a batch), acknowledgements, on `MemoryTransport`. The
distiller is not part of the figure: the clock stops when the coordinator asks for it. What the simulated devices
themselves do is left out: their messages are written beforehand.
"""

from __future__ import annotations

import gc
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from benchmarks.harness import Options, Outcome, Spread, Target, run, spread
from broker_server.broadcast import Broadcast
from broker_server.conduct import Conduct
from broker_server.config import FleetConfig, RoundsConfig, TrustConfig
from broker_server.coordinator import Coordinator
from broker_server.effects import Distil
from broker_server.events import ReleaseStored
from broker_server.keys import Keys
from broker_server.publisher import Publisher
from broker_server.pump import Pump, Speaker
from broker_server.quotas import QuotaConfig
from broker_server.records import ReleaseRecord
from broker_server.signed_roles import SignedRoles
from broker_server.store.blobs import BlobFolder
from broker_server.store.database import Database
from broker_server.task_rounds import TaskRounds, TaskSetup
from broker_server.workshop import Workshop
from edge_client.last_votes import in_full
from edge_models.tasks import load_task
from edge_protocol import messages as m
from edge_protocol.arrays import pack
from edge_protocol.codec import encode
from edge_protocol.ids import DeviceId, FleetId
from edge_protocol.manifest import Artifact, ReleaseManifest, encode_manifest
from edge_protocol.topics import Topics
from edge_protocol.transport.memory import MemoryBroker, MemoryTransport

SAMPLES = 1000
NOW = 1_700_000_000.0
SLOPE_LIMIT = 1.1


class Bench:
    """A server without its process, and a fleet's messages, written down."""

    def __init__(self, folder: Path, devices: int) -> None:
        self.spec, self.topics = load_task("vehicle"), Topics(FleetId("bench"))
        self.broker, self.devices = MemoryBroker(), [DeviceId(f"dev-{i}") for i in range(devices)]
        blobs = BlobFolder(folder / "blobs")
        self.proxy = blobs.put(b"proxy" * 1000)
        self.database = Database(folder / "server.db")
        rounds = RoundsConfig(limit=1, quorum=devices, wait_for=devices, deadline_s=600, pause_s=0)
        self.coordinator = Coordinator(
            [TaskRounds(TaskSetup(self.spec, self.proxy, SAMPLES, rounds))], FleetConfig(max_devices=devices)
        )
        inbox: Queue[Any] = Queue()
        self.transport = MemoryTransport(self.broker, inbox)
        publisher, speaker = Publisher(self.topics, blobs, self.transport), Speaker("bench")
        self.asked: list[Distil] = []
        roles = SignedRoles(folder / "tuf", Keys([]), TrustConfig())
        self.pump = Pump(
            conduct=Conduct(QuotaConfig(), 1_000_000, {}),
            coordinator=self.coordinator,
            database=self.database,
            transport=self.transport,
            publisher=publisher,
            broadcast=Broadcast(publisher, self.database, roles, self.topics, speaker.encode, keep=1),
            workshop=cast("Workshop", SimpleNamespace(do=lambda work, _proxy: self.asked.append(work))),
            topics=self.topics,
            speaker=speaker,
            inbox=inbox,
        )
        self.transport.subscribe(self.topics.every_uplink)
        self.transport.start()
        self._release(blobs, inbox)
        self.phases = [list(self._births()), list(self._commitments()), list(self._reports())]

    def _release(self, blobs: BlobFolder, inbox: Queue[Any]) -> None:
        ref = blobs.put(b"weights" * 1000)
        artifact = Artifact("nano", self.spec.students["nano"], ref, ref, ref, 1)
        manifest = ReleaseManifest("bench", 1, self.spec, NOW, (artifact,), {})
        record = ReleaseRecord(
            task=self.spec.task_id,
            counter=1,
            round=0,
            created_s=NOW,
            metrics={},
            notes="",
            manifest=encode_manifest(manifest),
        )
        self.database.add_release(record)
        inbox.put(ReleaseStored(record))
        self.pump.step(NOW)

    def play(self) -> None:
        """Send each phase's messages and let the server take them, until it asks for the distiller."""
        for phase in self.phases:
            for topic, payload in phase:
                self.broker.route(topic, payload, retain=False)
            while self.pump.step(NOW) or self.pump.busy:
                pass
        answered = len(self.coordinator.tasks[self.spec.task_id].round.answered)  # type: ignore[union-attr]
        if len(self.asked) != 1 or answered != len(self.devices):
            raise AssertionError(f"the round did not close: {answered} of {len(self.devices)}, {self.pump.drops}")

    def _births(self) -> Iterator[tuple[str, bytes]]:
        runs = m.RunningTask(self.spec.name, self.spec.label_space, "nano", self.spec.students["nano"], 0)
        yield from self._each("birth", m.Birth("bench", "1", "none", 4, 1 << 30, (runs,)), 0)

    def _commitments(self) -> Iterator[tuple[str, bytes]]:
        yield from self._each("deployment", m.Deployment(self.spec.name, 1, "committed", 1, ""), 1)

    def _reports(self) -> Iterator[tuple[str, bytes]]:
        rng = np.random.default_rng(0)
        density = rng.integers(0, 8, SAMPLES).astype(np.uint8)
        speaks = density > 0
        votes = m.ClassVotes(
            pack((rng.integers(0, len(self.spec.labels), SAMPLES) * speaks).astype(np.uint8)),
            pack((rng.integers(0, 4, SAMPLES) * speaks).astype(np.uint8)),
            pack(density),
            pack(np.ones(len(self.spec.labels), np.uint8)),
        )
        report = m.KnowledgeReport(self.spec.name, self.spec.label_space, 1, 1, self.proxy.sha256, 100, votes)
        yield from self._each("knowledge", in_full(report), 2)

    def _each(self, kind: str, body: m.Body, sequence: int) -> Iterator[tuple[str, bytes]]:
        for number, device in enumerate(self.devices):
            message_id = number.to_bytes(8, "big") + sequence.to_bytes(8, "big")
            header = m.Header("bench", device, message_id, bytes(8), sequence, NOW, True)  # noqa: FBT003 - the wire's order
            yield self.topics.up(device, kind), encode(header, body)


def cpu_seconds(devices: int) -> float:
    """CPU seconds of this process for one round."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), devices)
        gc.collect()
        begun = time.process_time()
        bench.play()
        spent = time.process_time() - begun
        bench.database.close()
        return spent


def slope(sizes: list[int], seconds: list[float]) -> float:
    """Exponent of the growth: slope of the line through the points on a log-log plot; 1 is linear."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def measure(options: Options) -> Outcome:
    """Time a round of 100, 1,000 and 10,000 devices; --quick of 30, 100 and 1,000."""
    sizes, repeats = ([30, 100, 1000], 2) if options.quick else ([100, 1000, 10_000], 3)
    cpu_seconds(100)
    times = {size: [cpu_seconds(size) for _ in range(repeats * max(1, min(10, 1000 // size)))] for size in sizes}
    found: dict[int, Spread] = {size: spread(values) for size, values in times.items()}
    exponent = slope(sizes, [found[size].median for size in sizes])
    rows: list[list[object]] = [["devices", "CPU seconds", "microseconds a device"]]
    rows += [[size, str(found[size]), found[size].median / size * 1e6] for size in sizes]
    thousand = found[1000].median
    assert math.isfinite(exponent)
    return Outcome(
        headline=f"round of 1000 devices: {thousand:.3f} CPU s; growth to {sizes[-1]:,} devices: n^{exponent:.3f}",
        figures={"cpu_s": {str(size): found[size] for size in sizes}, "slope": exponent, "votes": SAMPLES},
        targets=[Target("growth exponent", exponent, SLOPE_LIMIT)],
        rows=rows,
    )


if __name__ == "__main__":
    raise SystemExit(run(measure))
