"""Variants of a student: FP16, INT8 for CPUs, INT8 for TensorRT; each through its gate, or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from devices.runners.onnx_file import OnnxFile
from edge_models.samples import Samples
from edge_protocol.task import TaskSpec
from export.passes.base import Pass, Report, apply
from export.passes.gates import Gate, Limits, judge
from export.passes.half import to_half
from export.passes.int8 import METHODS, Target, to_int8
from export.passes.sensitivity import Sensitivity, sensitivity
from export.passes.simplify import simplify

Variant = Literal["fp16", "int8-cpu", "int8-trt"]
VARIANTS: tuple[Variant, ...] = ("fp16", "int8-cpu", "int8-trt")
F4 = npt.NDArray[np.float32]
_TARGET: dict[Variant, Target] = {"int8-cpu": "cpu", "int8-trt": "trt"}
_BLAMED, _RANKED_ON = 5, 64
_BLOCKS, _BLOCK = 60, 5
Slowdown = Callable[[bytes, bytes, F4], float]


class VariantReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a variant came out.

    Attributes:
        variant: which.
        passes: what each did.
        method: of calibration that was chosen; empty for FP16.
        calibrations: what was measured of each method that was tried.
        gate: what was measured.
        slowdown: CPU time of one sample over that of the FP32 file, on the machine that built it; None: not asked.
        blame: the most sensitive layers, when a limit was not kept.
        problems: why it is not shipped; empty: it is.
    """

    variant: Variant
    passes: tuple[Report, ...]
    method: str
    calibrations: dict[str, Gate]
    gate: Gate
    slowdown: float | None
    blame: tuple[Sensitivity, ...]
    problems: tuple[str, ...]

    @property
    def reason(self) -> str:
        """Why it is not shipped, in one line."""
        worst = self.blame[0] if self.blame else None
        layer = f"; most sensitive: {worst.layer} ({worst.weight}), {worst.sqnr_db:.1f} dB alone" if worst else ""
        return f"{self.variant} is not written: {'; '.join(self.problems)}{layer}"


def build_variant(
    variant: Variant,
    spec: TaskSpec,
    model: bytes,
    *,
    calibration: F4,
    held: tuple[F4, Samples],
    limits: Limits | None = None,
    slowdown: Slowdown | None = None,
) -> tuple[bytes | None, VariantReport]:
    """Build one variant of an FP32 file, and judge it.

    INT8 is calibrated by extremes and by percentiles; the better score on the held samples wins, then the lower noise.

    Args:
        variant: which.
        spec: the task.
        model: self-contained FP32 file.
        calibration: (N, *shape) float32, samples of the task.
        held: others, as the student takes them, and with their targets.
        limits: what it has to keep.
        slowdown: compares CPU times; ``int8-cpu`` must not be slower than FP32. None: not asked.

    Returns:
        The file, None when it is not to be shipped, and the report.
    """
    limits, target = limits or Limits(), _TARGET.get(variant)
    recipes: dict[str, Pass] = (
        {"": to_half} if target is None else {method: to_int8(target, method, calibration) for method in METHODS}
    )
    tried = []
    for method, recipe in recipes.items():
        made, done = apply([simplify, recipe], model)
        tried.append((judge(spec, model, made, *held, limits), method, made, tuple(done)))
    gate, method, made, reports = min(tried, key=lambda one: (one[0].loss, -(one[0].sqnr_db or np.inf)))
    ratio = slowdown(model, made, held[0][:1]) if slowdown and variant == "int8-cpu" else None
    slow = (f"{ratio:.2f} times the CPU time of FP32 on this machine",) if ratio is not None and ratio >= 1 else ()
    blame: tuple[Sensitivity, ...] = ()
    if gate.problems and target is not None:
        blame = tuple(sensitivity(simplify(model)[0], calibration[:_RANKED_ON], target=target)[:_BLAMED])
    found = VariantReport(
        variant=variant,
        passes=reports,
        method=method,
        calibrations={tried_method: found for found, tried_method, *_ in tried if target is not None},
        gate=gate,
        slowdown=ratio,
        blame=blame,
        problems=(*gate.problems, *slow),
    )
    return (None if found.problems else made), found


def cpu_slowdown(before: bytes, after: bytes, x: F4) -> float:
    """Median ratio of CPU times of two files for the same input, measured in turn on this machine."""
    with OnnxFile(before) as first, OnnxFile(after) as second:
        ratios = []
        for _ in range(_BLOCKS):
            spent = []
            for one in (first, second):
                begun = time.process_time_ns()
                for _ in range(_BLOCK):
                    one.infer({"input": x})
                spent.append(time.process_time_ns() - begun)
            ratios.append(spent[1] / max(spent[0], 1))
        return median(ratios)
