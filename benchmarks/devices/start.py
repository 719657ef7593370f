"""How soon a device answers: from the start of the agent's process to its first answer, against a bare script.

The script imports ONNX Runtime and OpenCV, loads the same student as one file, scales a picture of noise and answers
it. The agent is what the service starts: it has a release installed, proves it, checks every file's hash, opens its
stores, and answers the first picture of a pack. Both are fresh processes in turn; what they read lies in the page
cache, so a card's reading time is not in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from ast import literal_eval
from pathlib import Path
from typing import NamedTuple

from benchmarks.agent_overhead import apart, build, device_of
from benchmarks.harness import Options, Outcome, Target, ratios, run, spread
from edge_models.tasks import load_task
from export.graph import inlined

MOST = 2.0
"""Seconds until the agent's first answer, in those of the script."""
BARE = """
import sys, time
at = [("interpreter", time.monotonic(), time.process_time())]
def mark(part): at.append((part, time.monotonic(), time.process_time()))
import numpy as np
import cv2
import onnxruntime
mark("imports")
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
mark("model")
inputs = session.get_inputs()[0]
picture = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
x = cv2.resize(picture, (inputs.shape[3], inputs.shape[2]), interpolation=cv2.INTER_AREA)
session.run(None, {inputs.name: x.transpose(2, 0, 1)[None].astype(np.float32) / 255})
mark("first answer")
print(at)
"""
AGENT = """
import gc, os, sys, threading, time
gc.disable()
at = [("interpreter", time.monotonic(), time.process_time())]
def mark(part): at.append((part, time.monotonic(), time.process_time()))
from pathlib import Path
import numpy, onnxruntime
mark("imports as in the script")
import tuf.api.metadata
mark("imports that prove a release")
from roadcast.agent import load_device
from edge_client.agent import Agent
mark("imports of the agent")
config = load_device(Path(sys.argv[1]))
mark("settings")
agent = Agent(config)
mark("stores, proof, model")
def watch():
    while not agent.inference.counters.answered:
        time.sleep(0.0005)
    mark("first answer")
    print(at, flush=True)
    os._exit(0)
threading.Thread(target=watch, daemon=True).start()
agent.run()
"""


def measure(options: Options) -> Outcome:
    """Time the first answers of the agent and of a bare script, in turn."""
    spec = load_task("vehicle")
    repeats = 5 if options.quick else 15
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        built = apart(build, spec)
        (folder / "student.onnx").write_bytes(inlined(built.template, built.weights))
        config = device_of(folder, spec, built)
        runs: dict[str, list[list[Part]]] = {"script": [], "agent": []}
        for repeat in range(repeats + 1):  # the first fills the page cache
            for kind, script, argument in (("script", BARE, folder / "student.onnx"), ("agent", AGENT, config)):
                parts = _first_answer(script, argument)
                if repeat:
                    runs[kind].append(parts)
    wall = {kind: [sum(part.wall_s for part in parts) for parts in found] for kind, found in runs.items()}
    cpu = {kind: [sum(part.cpu_s for part in parts) for parts in found] for kind, found in runs.items()}
    ratio, work = ratios(wall["agent"], wall["script"]), ratios(cpu["agent"], cpu["script"])
    rows: list[tuple[object, ...]] = [("", "s", "CPU s")]
    for kind, found in runs.items():
        rows.append((kind, spread(wall[kind]), spread(cpu[kind])))
        for same in zip(*found, strict=True):
            walls, cpus = spread([part.wall_s for part in same]), spread([part.cpu_s for part in same])
            rows.append((f"  {same[0].name}", walls, cpus))
    return Outcome(
        f"the agent's first answer comes after {ratio} times what a bare script takes, {work} in CPU seconds",
        {"ratio": ratio, "cpu_ratio": work, "seconds": wall, "cpu_seconds": cpu},
        [Target("seconds to the first answer, agent over script", ratio.median, MOST)],
        rows,
    )


class Part(NamedTuple):
    """What one part of a start took."""

    name: str
    wall_s: float
    cpu_s: float


def _first_answer(script: str, argument: Path) -> list[Part]:
    """The parts from the start of the process to its first answer.

    As on a device, bytecode lies on the disk, and no editable installation looks on at each import.
    """
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPYCACHEPREFIX": str(argument.parent / "bytecode"),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path[1:]]),
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-S", "-c", script, str(argument)]
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, check=True, text=True, env=environment)
    marks = literal_eval(done.stdout.splitlines()[-1])
    before = [(begun, 0.0), *((wall, cpu) for _, wall, cpu in marks)]
    return [
        Part(name, wall - wall_before, cpu - cpu_before)
        for (name, wall, cpu), (wall_before, cpu_before) in zip(marks, before, strict=False)
    ]


if __name__ == "__main__":
    raise SystemExit(run(measure))
