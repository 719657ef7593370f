"""A whole agent in a process of its own, which tells where its deployment stands until it is killed.

Processes are forked from a server that has imported everything and runs no thread: a start costs milliseconds. Broker
and centre live in the process too, so that a kill takes nothing with it but the agent.
"""

from __future__ import annotations

import logging
import multiprocessing as mp
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from edge_client.config import DeviceConfig
from edge_client.disk import file_sha256
from edge_client.installed import Resolved, resolve
from edge_models.tasks import load_task
from edge_protocol import messages as m
from edge_protocol.blobs import BlobRef
from tests.edge_client.device_rig import DeviceRig
from tests.edge_client.test_deltas import moved
from tests.fakes.small_centre import Files, artifact_files, manifest_of, signed_fleet

SPEC = load_task("vehicle")
TRAINER = (sys.executable, "-S", "-c", "import sys; sys.exit('no trainer here')")
WITHIN_S = 120.0
REFUSALS = {"clock-untrusted", "metadata-expired"}
CONTEXT = mp.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.edge_client.device_rig", "edge_client.agent", "onnxruntime", "cv2"])


def several() -> list[Files]:
    """Releases to go through in turn: each second one comes with a delta."""
    first, second = artifact_files(), artifact_files(seed=1)
    return [first, moved(first), second, moved(second)]


def slowly(topic: str, payload: bytes) -> list[bytes]:
    """A link on which each chunk takes its time, so that kills find files half fetched."""
    if "/blob/" in topic:
        time.sleep(0.02)
    return [payload]


@dataclass(frozen=True)
class Published:
    """A release as it is published: the processes that are killed sign nothing, and hold no key."""

    counter: int
    manifest: bytes
    metadata: Mapping[str, bytes]
    blobs: Mapping[BlobRef, list[bytes]]


def published(counter: int, files: list[Files]) -> Published:
    """Sign a release."""
    wanted, base = files[counter % len(files)], files[(counter - 1) % len(files)]
    near = base if wanted.template == base.template else None
    manifest, blobs = manifest_of(counter, {"nano": wanted}, spec=SPEC, base=near)
    return Published(counter, signed_fleet().release(manifest), signed_fleet().files(), blobs)


def serve(config: DeviceConfig, offered: Published, pipe: Connection, clock_s: float | None) -> None:
    """Run an agent that is offered a release; tell (stage, what it is about, what runs) until killed, or committed.

    What its gate refuses is told like a stage.
    """
    logging.disable()
    ahead, counter = 0.0 if clock_s is None else clock_s - time.time(), offered.counter
    rig = DeviceRig(config, trainer=TRAINER, wall=lambda: time.time() + ahead)
    rig.broker.fault = slowly
    pipe.send(("booted", counter, rig.agent.core.running.release))
    for ref, chunks in offered.blobs.items():
        rig.centre.blob(ref, chunks)
    rig.centre.metadata(offered.metadata)
    rig.centre.say(rig.centre.topics.release(SPEC.task_id), m.ReleaseOffer(offered.manifest), retain=True)
    heard, refused = 0, set[str]()
    while True:
        rig.agent.turn()
        rig.centre.turn()
        for reason in REFUSALS & set(rig.agent._drops) - refused:
            refused.add(reason)
            pipe.send((reason, counter, rig.agent.core.running.release))
        for body in rig.centre.heard[heard:]:
            if isinstance(body, m.Deployment):
                pipe.send((body.state, body.release, body.running))
        heard = len(rig.centre.heard)
        rig.centre.heard[:], heard = rig.centre.heard[-50:], min(heard, 50)


@dataclass
class Killed:
    """One device, started and killed again and again.

    Attributes:
        config: the device's.
        files: what its releases hold, in turn.
        floor: highest counter that it was heard to have committed.
        kills: how many hit it, by the stage that it was last heard in.
        clock_s: what its wall clock shows at each start; None for the right time.
    """

    config: DeviceConfig
    files: list[Files]
    floor: int = 0
    kills: dict[str, int] = field(default_factory=dict)
    clock_s: float | None = None

    @property
    def state(self) -> Path:
        """Its state directory."""
        return Path(self.config.state_dir)

    def run(self, counter: int, until: str, then_s: float = 0.0) -> None:
        """Offer a release, and kill the process (SIGKILL) so many seconds after a stage was reached."""
        ours, theirs = CONTEXT.Pipe(duplex=False)
        offered = published(counter, self.files)
        process = CONTEXT.Process(target=serve, args=(self.config, offered, theirs, self.clock_s))
        process.start()
        theirs.close()
        stage = "starting"
        try:
            if until != "starting":
                stage = self._hear(ours, counter, until)
            deadline = time.monotonic() + then_s
            while (left := deadline - time.monotonic()) > 0 and ours.poll(left):
                stage = self._heard(ours.recv(), counter)
        finally:
            process.kill()
            process.join()
        stage = "half a file" if any(self.state.glob("blobs/*/part")) else stage
        self.kills[stage] = self.kills.get(stage, 0) + 1
        self._drain(ours, counter)
        process.close()

    def _hear(self, pipe: Connection, counter: int, until: str) -> str:
        deadline = time.monotonic() + WITHIN_S
        while True:
            assert pipe.poll(max(deadline - time.monotonic(), 0)), f"release {counter} never came to {until}"
            stage = self._heard(pipe.recv(), counter)
            assert stage not in {"rejected", "rolled-back", "failed", "paused"}, f"release {counter} was {stage}"
            if stage == until or (stage == "committed" and until != "booted"):
                return stage

    def _heard(self, told: Any, counter: int) -> str:
        stage, release, running = told
        assert running >= self.floor, f"{running} runs, {self.floor} was committed"
        if stage == "committed":
            self.floor = max(self.floor, running)
        return "booted" if release != counter else str(stage)

    def _drain(self, pipe: Connection, counter: int) -> None:
        try:
            while True:
                self._heard(pipe.recv(), counter)
        except EOFError:
            pipe.close()

    def resolved(self) -> list[Resolved]:
        """What its disk would boot now; every byte of it is checked against the manifest."""
        folder, blobs, root = self.state / SPEC.name, self.state / "blobs", signed_fleet().root
        whole, skipped = resolve(folder, blobs, spec=SPEC, tier="nano", root=root)
        newest = whole[0].release if whole else 0
        assert newest >= self.floor, f"{newest} would boot, {self.floor} was committed; {skipped}"
        for found in whole:
            for ref in (found.artifact.template, found.artifact.weights, found.artifact.golden):
                assert file_sha256(found.blob(ref.sha256)) == ref.sha256
        return whole
