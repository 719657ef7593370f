"""ONNX Runtime, FP32 and INT8, against PyTorch, eager and compiled: CPU time of one sample, each shipped student.

One thread, in turn in one run, fresh weights (speed does not ask which). Batch norms are folded for PyTorch too, and
answers of all but INT8 are compared before anything is timed. Whether INT8 is shipped, and what it loses, is
`benchmarks.latency.int8`'s to say.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.harness import Options, Outcome, Spread, Target, interleaved, ratios, run
from devices.runners.onnx_file import OnnxFile
from edge_models.students import Student, build_student
from edge_models.tasks import load_task
from edge_protocol.task import TIERS, TaskSpec, Tier
from export import build_artifact
from export.fold import folded
from export.graph import inlined
from export.passes.int8 import to_int8
from export.passes.simplify import simplify

CALIBRATED, BLOCK, PARITY = 64, 10, 1e-3
CASES = ("eager", "compiled", "fp32", "int8")
PAIRS = (("compiled", "eager"), ("fp32", "eager"), ("int8", "eager"), ("fp32", "compiled"), ("int8", "fp32"))
F4 = npt.NDArray[np.float32]
Case = Callable[[], object]


def measure(options: Options) -> Outcome:
    """Compare FP32 and INT8 in ONNX Runtime with PyTorch eager and torch.compile, each student."""
    torch.set_num_threads(1)
    repeats = 40 if options.quick else 120
    rows: list[tuple[object, ...]] = [
        ("student", "compile s", *(f"{case} us" for case in CASES), *(f"{a}/{b}" for a, b in PAIRS))
    ]
    figures: dict[str, object] = {}
    eager, compiled = list[float](), list[float]()
    for task in ("vehicle", "speed"):
        for tier in TIERS[:1] if options.quick else TIERS:
            compile_s, took, over = compared(task, tier, repeats)
            rows.append((f"{task} {tier}", compile_s, *took.values(), *map(_short, over.values())))
            figures[f"{task}_{tier}"] = {"compile_s": compile_s, "us": took, **over}
            eager.append(over["fp32/eager"].median)
            compiled.append(over["fp32/compiled"].median)
    targets = (
        Target("FP32 in ONNX Runtime over PyTorch eager, at most over the students", max(eager), 1.0),
        Target("FP32 in ONNX Runtime over torch.compile, at most over the students", max(compiled), 1.0),
    )
    headline = (
        f"FP32 in ONNX Runtime takes {min(eager):.2f} to {max(eager):.2f} of PyTorch eager's CPU time, "
        f"{min(compiled):.2f} to {max(compiled):.2f} of torch.compile's"
    )
    return Outcome(headline, figures, targets, rows)


def compared(task: str, tier: Tier, repeats: int) -> tuple[float, dict[str, float], dict[str, Spread]]:
    """Seconds to compile a student, microseconds of CPU time of one sample by case, and ratios of `PAIRS`."""
    spec = load_task(task)
    x = np.random.default_rng(0).normal(size=(CALIBRATED, *spec.input.shape)).astype(np.float32)
    student = build_student(spec, tier)
    full = full_model(spec, tier, student, x[:4])
    ready, compile_s = compiled_student(student, x[:1])
    int8 = to_int8("cpu", "minmax", x)(simplify(full)[0])[0]
    found = speeds({"eager": folded(student), "compiled": ready}, {"fp32": full, "int8": int8}, x[:1], repeats)
    took = {case: 1e6 * float(np.median(found[case])) / BLOCK for case in CASES}
    return compile_s, took, {f"{a}/{b}": ratios(found[a], found[b]) for a, b in PAIRS}


def full_model(spec: TaskSpec, tier: Tier, student: Student, x: F4) -> bytes:
    """The student as one ONNX file with its weights inside; x (N, *input shape) is what the export traces."""
    built = build_artifact(spec, tier, student, x)
    return inlined(built.template, built.weights)


def compiled_student(student: Student, x: F4) -> tuple[Callable[[torch.Tensor], object], float]:
    """The folded student after torch.compile, checked against eager, and the seconds until its first answer."""
    plain, one = folded(student), torch.from_numpy(x)
    with torch.inference_mode(), tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache  # nothing of an earlier run makes this one look fast
        begun = time.perf_counter()
        ready = torch.compile(plain)
        answers = ready(one)
        seconds = time.perf_counter() - begun
        for answer, expected in zip(answers, plain(one), strict=True):
            torch.testing.assert_close(answer, expected, rtol=PARITY, atol=PARITY)
    return ready, seconds


def speeds(
    torched: Mapping[str, Callable[[torch.Tensor], object]], files: Mapping[str, bytes], x: F4, repeats: int
) -> dict[str, list[float]]:
    """Seconds of CPU time of `BLOCK` queries of x, per case and repeat, interleaved."""
    one = torch.from_numpy(x)

    def of_torch(model: Callable[[torch.Tensor], object]) -> Case:
        def block() -> None:
            with torch.inference_mode():
                for _ in range(BLOCK):
                    model(one)

        return block

    def of_file(model: OnnxFile) -> Case:
        def block() -> None:
            for _ in range(BLOCK):
                model.infer({"input": x})

        return block

    with ExitStack() as opened:
        cases = {name: of_torch(model) for name, model in torched.items()}
        cases |= {name: of_file(opened.enter_context(OnnxFile(file))) for name, file in files.items()}
        return interleaved(cases, repeats=repeats, warm_up=5, clock=time.process_time)


def _short(value: Spread) -> str:
    return f"{value.median:.3f} ({value.low:.3f} to {value.high:.3f})"


if __name__ == "__main__":
    raise SystemExit(run(measure))
