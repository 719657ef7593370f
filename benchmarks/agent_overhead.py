"""What the agent costs beside the student: frames per CPU second over a bare ONNX Runtime loop, and its memory.

Both loops prepare and answer the same camera frames in one thread. The agent's loop adds what makes it an agent: queue,
missing-frame rule, personal head, tally, memory for labels and probation, latency record. Memory is that of a whole
agent process, with a release installed, while it answers frames; it must not have loaded torch.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
from typing_extensions import ParamSpec

from benchmarks.harness import Options, Outcome, Spread, Target, interleaved, ratios, run
from devices.packs import ImagePack, save_pack
from devices.preprocess import Preprocess
from devices.runners.ort_runner import OrtRunner
from devices.sources import Frame, open_source
from edge_client.inference import Feed, Inference
from edge_client.installed import InstalledStore
from edge_client.pipelines import Bundle, WholeSample
from edge_client.results import Tally
from edge_client.seen import Seen
from edge_client.trainer import shared_head
from edge_models.tasks import load_task, plugin_of
from edge_protocol.blobs import BlobRef, cut
from edge_protocol.manifest import Artifact, ReleaseManifest
from edge_protocol.task import ImageInput, TaskSpec
from tests.fakes.signed_fleet import SignedFleet

P = ParamSpec("P")
T = TypeVar("T")
CAMERA = (432, 768)
CROP = (64, 64)
FRAMES = 8
LEAST_RATIO = 0.97
MOST_MB = 120
HEAVY = ("torch", "onnx", "onnxscript", "sqlalchemy", "alembic", "fastapi")
SERVE = """
import json, sys, time
from edge_client.agent import Agent
from edge_client.config import DeviceConfig
from edge_protocol.config import load_config
from edge_protocol.transport.mqtt import MqttTransport
from pathlib import Path
path, seconds, heavy = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
agent = Agent(load_config(path.read_text(), DeviceConfig, where=str(path)))
agent.start()
deadline = time.monotonic() + seconds
while time.monotonic() < deadline:
    agent.turn()
counted = agent.inference.counters
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
agent.close()
rss = int(status["VmRSS"].split()[0]) / 1024
peak = int(status["VmHWM"].split()[0]) / 1024
loaded = [name for name in heavy if name in sys.modules]
print(json.dumps({"rss_mb": rss, "peak_mb": peak, "answered": counted.answered, "loaded": loaded}))
"""


def measure(options: Options) -> Outcome:
    """Agent loop against a bare ONNX Runtime loop, and resident memory of a serving agent."""
    spec = load_task("vehicle")
    built = build(spec)
    repeats = 400 if options.quick else 1500
    rows: list[tuple[object, ...]] = [("frames", "head", "bare us", "agent us", "ratio")]
    found: dict[str, Spread] = {}
    for name, shape in (("camera", CAMERA), ("crop", CROP)):
        for head in ("shared", "personal"):
            ratio, bare_us, agent_us = apart(compare, spec, built, shape, head == "personal", repeats)
            found[f"{name}_{head}"] = ratio
            rows.append((f"{name} {shape[1]}x{shape[0]}", head, bare_us, agent_us, ratio.median))
    memory = serve(spec, built, seconds=4 if options.quick else 15)
    if memory["loaded"] or not memory["answered"]:
        raise SystemExit(f"the serving agent loaded {memory['loaded']} and answered {memory['answered']} frames")
    rows.append(("serving agent", "personal", "-", f"{memory['rss_mb']:.0f} MB", "-"))
    ratio = found["camera_personal"]
    targets = (
        Target("frames per CPU second, agent / bare loop", ratio.median, LEAST_RATIO, at_most=False),
        Target("resident memory of the serving agent, MB", float(str(memory["rss_mb"])), MOST_MB),
    )
    headline = f"agent loop / bare ONNX Runtime loop: {ratio}; serving agent: {memory['rss_mb']:.0f} MB resident"
    return Outcome(headline, {**found, **memory}, targets, rows)


@dataclass(frozen=True)
class Files:
    """A student's files."""

    template: bytes
    weights: bytes
    golden: bytes
    parameters: int


def build(spec: TaskSpec) -> Files:
    """Export an untrained student; only this process loads torch."""
    from edge_models.students import build_student  # noqa: PLC0415
    from export import build_artifact  # noqa: PLC0415

    inputs = np.random.default_rng(0).normal(size=(4, *spec.input.shape)).astype(np.float32)
    built = build_artifact(spec, "nano", build_student(spec, "nano"), inputs)
    return Files(built.template, built.weights, built.golden, built.parameters)


def apart(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run in a process of its own, as small as an agent: the collector must not walk through torch."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(function, *args, **kwargs).result()


def compare(
    spec: TaskSpec,
    built: Files,
    shape: tuple[int, int],
    personal: bool,  # noqa: FBT001 - passed to another process
    repeats: int,
) -> tuple[Spread, float, float]:
    """Ratio of frames per CPU second, and microseconds per frame of both loops."""
    gc.freeze()  # as the agent does
    assert isinstance(spec.input, ImageInput)
    preprocess, runner = Preprocess(spec.input), OrtRunner(built.template, built.weights)
    rng = np.random.default_rng(1)
    frames = [
        Frame(sample=f"s-{i}", at_s=1.7e9 + i / 25, image=rng.integers(0, 255, (*shape, 3), dtype=np.uint8))
        for i in range(FRAMES)
    ]
    session = runner._session  # noqa: SLF001 - the bare loop is what the runner wraps

    def bare() -> None:
        for frame in frames:
            assert frame.image is not None
            x = preprocess.batch(preprocess.raw(frame.image)[None])
            session.run(["features", "logits"], {"input": x})[1].argmax()

    seen = Seen(every_s=1.0)
    tally = Tally(task=spec.name, source="cam", interval_s=60, slot_s=None, emit=lambda _: None)
    pipeline = WholeSample(spec, preprocess, tally, seen)
    feed = Feed("cam", lambda: open_source("pack:///none", name="cam"), pipeline, tally)
    inference = Inference([feed], queue=8)
    inference.swap(Bundle(1, runner, shared_head(built.weights) if personal else None))

    def agent() -> None:
        for frame in frames:
            inference.offer(feed, frame)
            inference.answer_next()
        seen.drain()

    seconds = interleaved({"bare": bare, "agent": agent}, repeats=repeats, clock=time.process_time)
    per_frame = {name: float(np.median(times)) / FRAMES * 1e6 for name, times in seconds.items()}
    return ratios(seconds["bare"], seconds["agent"]), per_frame["bare"], per_frame["agent"]


def serve(spec: TaskSpec, built: Files, *, seconds: float) -> dict[str, object]:
    """Run a whole agent for a while, with a release installed and no broker to be reached; return what it says."""
    with tempfile.TemporaryDirectory() as name:
        config = device_of(Path(name), spec, built)
        command = [sys.executable, "-c", SERVE, str(config), str(seconds), *HEAVY]
        done = subprocess.run(
            command, capture_output=True, check=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        said: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
        return said


def device_of(folder: Path, spec: TaskSpec, built: Files) -> Path:
    """Write a device with a release installed, a pack for a camera and no broker to be reached; return its YAML."""
    samples = plugin_of(spec).simulate(spec, np.random.default_rng(2), 200)
    pack = ImagePack.of(samples.raw.astype(np.uint8), labels=samples.targets, classes=spec.labels)
    save_pack(folder / "pack.npz", pack, title="simulated")
    root = _install(folder / "state", spec, built)
    config = {
        "fleet": "bench",
        "device": "cam-1",
        "tier": "nano",
        "task": spec.name,
        "broker": {"port": 9},
        "trusted_root": root.decode(),
        "state_dir": str(folder / "state"),
        "labels": {"commissioning": str(folder / "pack.npz")},
        "sources": [
            {
                "name": "cam",
                "uri": f"pack://{folder}/pack.npz",
                "rate_hz": 50,
                "loop": True,
                "serving": "whole-sample",
            }
        ],
    }
    (folder / "device.yaml").write_text(json.dumps(config))
    return folder / "device.yaml"


def _install(state: Path, spec: TaskSpec, built: Files) -> bytes:
    """Put a release in place; return the root that proves it."""
    fleet = SignedFleet(tasks=[spec.name])
    template, weights, golden = (_blob(state, data) for data in (built.template, built.weights, built.golden))
    artifact = Artifact("nano", spec.students["nano"], template, weights, golden, built.parameters)
    manifest = ReleaseManifest("bench", 1, spec, 1.0, (artifact,), {})
    InstalledStore(state / spec.name).commit(1, artifact, *fleet.prove(manifest))
    return fleet.root


def _blob(state: Path, data: bytes) -> BlobRef:
    ref, _ = cut(data)
    (state / "blobs" / ref.sha256).mkdir(parents=True)
    (state / "blobs" / ref.sha256 / "data").write_bytes(data)
    return ref


if __name__ == "__main__":
    raise SystemExit(run(measure))
