"""From a fetched payload to serving: read, check hashes, load, check golden answers, warm up, swap.

The bare side is what any user of ONNX Runtime pays for new weights: one `InferenceSession` on a self-contained file
that is already in memory. Both sides run on one thread, interleaved.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnxruntime
from harness import Options, Outcome, Target, interleaved, ratios, run, spread
from safetensors.numpy import load

from devices.runners.ort_runner import OrtRunner
from edge_models.students import build_student
from edge_models.tasks import load_task
from edge_protocol.errors import DigestError
from edge_protocol.task import TIERS, TaskSpec, Tier
from export import build_artifact
from export.folder import GOLDEN, TEMPLATE, WEIGHTS, read_part, write_artifact
from export.golden import check_golden
from export.graph import inlined

LIMIT = 5.0
WARM_UP = 3


class Swapper:
    """Serves one student, and swaps it for what lies in a folder."""

    def __init__(self, folder: Path, shape: tuple[int, ...]) -> None:
        self._folder = folder
        self._frame = np.zeros((1, *shape), np.float32)
        self._digests = {n: sha256(read_part(folder, n)).hexdigest() for n in (TEMPLATE, WEIGHTS, GOLDEN)}
        self.serving: OrtRunner | None = None
        self.swap()

    def swap(self) -> None:
        """Do what a device does between the last chunk and the first answer of a new release."""
        parts = {name: read_part(self._folder, name) for name in self._digests}
        for name, data in parts.items():
            if sha256(data).hexdigest() != self._digests[name]:
                raise DigestError(f"{name} was changed on disk while the benchmark ran")
        runner = OrtRunner(parts[TEMPLATE], parts[WEIGHTS])
        check_golden(runner, parts[GOLDEN])
        for _ in range(WARM_UP):
            runner.infer(self._frame)
        old, self.serving = self.serving, runner
        if old is not None:
            old.close()


def bare_session(folder: Path) -> Callable[[], object]:
    """Return what makes one bare session from a self-contained file in memory."""
    data = inlined(read_part(folder, TEMPLATE), load(read_part(folder, WEIGHTS)))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return lambda: onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def measure(options: Options) -> Outcome:
    """Payload fetched to serving, relative to one bare session, for the six students."""
    repeats = 20 if options.quick else 200
    rows: list[tuple[object, ...]] = [("student", "swap ms", "bare session ms", "ratio")]
    figures: dict[str, object] = {}
    worst = 0.0
    for spec in (load_task("vehicle"), load_task("speed")):
        for tier in TIERS:
            with tempfile.TemporaryDirectory() as folder:
                seconds = _measure_one(spec, tier, Path(folder), repeats)
            ratio = ratios(seconds["swap"], seconds["bare"])
            swap, bare = (spread([1e3 * s for s in seconds[side]]) for side in ("swap", "bare"))
            name = f"{spec.name}-{tier}-{spec.students[tier]}"
            rows.append((name, str(swap), str(bare), str(ratio)))
            figures[name] = {"swap_ms": swap, "bare_ms": bare, "ratio": ratio}
            worst = max(worst, ratio.median)
    headline = f"payload fetched to serving: at worst {worst:.2f} x one bare InferenceSession (target {LIMIT:g})"
    return Outcome(headline, figures, [Target("swap over bare session, worst student", worst, LIMIT)], rows)


def _measure_one(spec: TaskSpec, tier: Tier, folder: Path, repeats: int) -> dict[str, list[float]]:
    sample = np.random.default_rng(0).normal(size=(4, *spec.input.shape)).astype(np.float32)
    artifact = build_artifact(spec, tier, build_student(spec, tier), sample)
    write_artifact(folder, artifact, spec, tier)
    swapper = Swapper(folder, spec.input.shape)
    return interleaved({"swap": swapper.swap, "bare": bare_session(folder)}, repeats=repeats)


if __name__ == "__main__":
    raise SystemExit(run(measure))
