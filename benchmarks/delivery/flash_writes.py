"""Bytes that a deployment writes to flash, relative to its payload: the files that it brings and that were not there.

A whole agent takes releases from a centre in memory: whole, as a delta, with a restart in the middle, and over a link
that repeats and damages chunks. Counted where the device writes blobs and pointers (`edge_client.disk.Disk`); beside it
what the kernel says the whole process has written (`/proc/self/io`), with its databases of messages and samples.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from benchmarks.harness import Options, Outcome, Target, run
from edge_client.agent import Agent
from edge_client.disk import Disk
from edge_models.students import build_student
from edge_models.tasks import load_task
from edge_protocol.task import Tier
from edge_protocol.transport.memory import MemoryBroker, MemoryTransport
from export import build_artifact
from tests.edge_client.device_rig import NO_TRAINER, device_config
from tests.fakes.small_centre import Files, SmallCentre, artifact_files

MOST = 2.5
TIER: Tier = "base"
WITHIN_S = 120.0
STEPS = 2.0


class CountingDisk(Disk):
    """Counts what is written."""

    def __init__(self) -> None:
        self.written = 0

    def write(self, file: BinaryIO, data: bytes, at: int) -> None:
        """Write and count."""
        self.written += len(data)
        super().write(file, data, at)


class Device:
    """An agent and its centre, in turns."""

    def __init__(self, folder: Path) -> None:
        self.broker, self.disk = MemoryBroker(), CountingDisk()
        self.centre = SmallCentre(self.broker)
        self._config = device_config(folder, tier=TIER, replay={"every_s": 60})
        self.boot()

    def boot(self) -> None:
        """Start the agent, again."""
        self.agent = Agent(
            self._config, lambda inbox, will: MemoryTransport(self.broker, inbox, will), NO_TRAINER, self.disk
        )
        self.agent.start()

    def until(self, condition: Callable[[], object]) -> None:
        """Take turns until something holds."""
        deadline = time.monotonic() + WITHIN_S
        while not condition():
            self.agent.turn()
            self.centre.turn()
            assert time.monotonic() < deadline

    def run(self, counter: int) -> None:
        """Take turns until a release serves and everything was acknowledged."""
        self.until(lambda: self.agent.core.running.release == counter and not len(self.agent.outbox))


def measure(options: Options) -> Outcome:
    """Bytes written to flash for a release over its payload, by the way it came. --quick is the same."""
    del options
    rows: list[list[object]] = [["deployment", "payload, kB", "at the seam, times", "whole process, times"]]
    times: dict[str, float] = {}
    ways = {"whole": whole, "delta": delta, "restart in the middle": restarted, "repeats and damage": damaged}
    for name, way in ways.items():
        with tempfile.TemporaryDirectory() as folder:
            device = Device(Path(folder))
            payload, written, process = way(device)
            device.agent.close()
        times[name] = written / payload
        rows.append([name, round(payload / 1e3), times[name], process / payload if process else "not counted here"])
    worst = max(times, key=lambda name: times[name])
    headline = f"worst: {times[worst]:.2f} times the payload ({worst})"
    return Outcome(headline, {"times": times}, [Target("bytes written over payload", times[worst], MOST)], rows)


Counts = tuple[int, int, int]
"""Bytes of the payload, written at the seam, written by the process."""


def whole(device: Device) -> Counts:
    """Every file of a first release."""
    return counted(device, artifact_files(tier=TIER), lambda: device.run(1))


def delta(device: Device) -> Counts:
    """New weights as a difference from the running ones: both the delta and what is made of it are written."""
    base = artifact_files(tier=TIER)
    device.centre.release(1, {TIER: base})
    device.run(1)
    files = moved(base)
    return counted(device, files, lambda: device.run(2), base)


def moved(base: Files) -> Files:
    """The same student after a round: weights moved by two INT8 steps, for a delta as large as real ones."""
    spec, rng = load_task("vehicle"), torch.Generator().manual_seed(1)
    student = build_student(spec, TIER, seed=0)
    with torch.no_grad():
        for weight in student.parameters():
            weight.add_(torch.randn(weight.shape, generator=rng) * weight.abs().max() * STEPS / 127)
    x = np.random.default_rng(0).normal(size=(4, *spec.input.shape)).astype(np.float32)
    built = build_artifact(spec, TIER, student, x, template=base.template, base=base.weights)
    return Files(built.template, built.weights, built.golden, built.parameters)


def restarted(device: Device) -> Counts:
    """The agent ends when half of the chunks are there, and begins again."""

    def act() -> None:
        half = sum("/blob/" in topic for topic in device.broker.retained) // 2
        device.until(lambda: device.agent.transport.traffic.messages_down > half)
        device.agent.close()
        device.boot()
        device.run(1)

    return counted(device, artifact_files(tier=TIER), act)


def damaged(device: Device) -> Counts:
    """A third of the chunks come twice, a third damaged and then again."""
    dice = random.Random(1)

    def fault(topic: str, payload: bytes) -> list[bytes]:
        if "/blob/" not in topic:
            return [payload]
        return [[payload], [payload, payload], [dice.randbytes(len(payload)), payload]][dice.randrange(3)]

    device.broker.fault = fault
    return counted(device, artifact_files(tier=TIER), lambda: device.run(1))


def counted(device: Device, files: Files, act: Callable[[], None], base: Files | None = None) -> Counts:
    """Release files, do what is to be counted, and count."""
    running = device.agent.core.running.release
    time.sleep(0.1)
    before, process = device.disk.written, process_wrote()
    device.centre.release(running + 1, {TIER: files}, base=base)
    act()
    payload = sum(len(data) for data in (files.weights, *(() if base else (files.template, files.golden))))
    return payload, device.disk.written - before, process_wrote() - process


def process_wrote() -> int:
    """Bytes that this process caused to be written to storage so far (proc(5)); 0 where the kernel does not say."""
    with suppress(OSError):
        for line in Path("/proc/self/io").read_text(encoding="ascii").splitlines():
            if line.startswith("write_bytes:"):
                return int(line.split()[1])
    return 0


if __name__ == "__main__":
    raise SystemExit(run(measure))
