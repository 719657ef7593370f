"""How soon a device answers: from the start of the agent's process to its first answer, against a bare script.

The script imports ONNX Runtime and OpenCV, loads the same student as one file, scales a picture of noise and answers
it. The agent has a release installed, checks every file's hash, opens its stores, and answers the first picture of a
pack. Both are fresh processes in turn; what they read lies in the page cache, so a card's reading time is not in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.agent_overhead import apart, build, device_of
from benchmarks.harness import Options, Outcome, Target, ratios, run, spread
from edge_models.tasks import load_task
from export.graph import inlined

MOST = 2.0
"""Seconds until the agent's first answer, in those of the script."""
BARE = """
import sys, time
import numpy as np
import cv2
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
inputs = session.get_inputs()[0]
picture = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
x = cv2.resize(picture, (inputs.shape[3], inputs.shape[2]), interpolation=cv2.INTER_AREA)
session.run(None, {inputs.name: x.transpose(2, 0, 1)[None].astype(np.float32) / 255})
print(time.monotonic(), time.process_time())
"""
AGENT = """
import os, sys, time
from pathlib import Path
from roadcast.commands.client import load_device
from edge_client.agent import Agent
agent = Agent(load_device(Path(sys.argv[1])))
agent.start()
while not agent.inference.counters.answered:
    time.sleep(0.0005)
print(time.monotonic(), time.process_time(), flush=True)
os._exit(0)
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
        seconds: dict[str, list[float]] = {"script": [], "agent": []}
        cpu: dict[str, list[float]] = {"script": [], "agent": []}
        for repeat in range(repeats + 1):  # the first fills the page cache
            for kind, script, argument in (("script", BARE, folder / "student.onnx"), ("agent", AGENT, config)):
                wall_s, cpu_s = _first_answer(script, argument)
                if repeat:
                    seconds[kind].append(wall_s)
                    cpu[kind].append(cpu_s)
    ratio, work = ratios(seconds["agent"], seconds["script"]), ratios(cpu["agent"], cpu["script"])
    rows = [("", "s", "CPU s"), *((kind, spread(values), spread(cpu[kind])) for kind, values in seconds.items())]
    return Outcome(
        f"the agent's first answer comes after {ratio} times what a bare script takes, {work} in CPU seconds",
        {"ratio": ratio, "cpu_ratio": work, "seconds": seconds, "cpu_seconds": cpu},
        [Target("seconds to the first answer, agent over script", ratio.median, MOST)],
        rows,
    )


def _first_answer(script: str, argument: Path) -> tuple[float, float]:
    """Seconds since the process was started, and CPU seconds that it took."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPYCACHEPREFIX": str(argument.parent / "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed agent has its bytecode beside it
    begun = time.monotonic()
    command = [sys.executable, "-c", script, str(argument)]
    done = subprocess.run(command, capture_output=True, check=True, text=True, env=environment)
    at_s, cpu_s = map(float, done.stdout.split()[-2:])
    return at_s - begun, cpu_s


if __name__ == "__main__":
    raise SystemExit(run(measure))
