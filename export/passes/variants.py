"""Variants of a student: FP16, INT8 for CPUs, INT8 for TensorRT; each through its gate, or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from devices.runners.onnx_file import OnnxFile
from edge_models.samples import Samples
from edge_protocol.task import TaskSpec
from export.passes.base import Pass, Report, apply
from export.passes.gates import Gate, Limits, judge
from export.passes.half import half_alone, to_half
from export.passes.int8 import METHODS, Method, Target, to_int8
from export.passes.sensitivity import Sensitivity, sensitivity
from export.passes.simplify import simplify

Variant = Literal["fp16", "int8-cpu", "int8-trt"]
VARIANTS: tuple[Variant, ...] = ("fp16", "int8-cpu", "int8-trt")
F4 = npt.NDArray[np.float32]
_TARGET: dict[Variant, Target] = {"int8-cpu": "cpu", "int8-trt": "trt"}
_BLAMED, _RANKED_ON = 5, 64
_BLOCKS, _BLOCK = 60, 5
CHOSEN_ON, LEAST_CHOSEN_ON = 0.25, 16
"""Share of the held samples that calibrations are chosen on, and how many they are at least."""
Held = tuple[F4, Samples]
"""Samples as the student takes them, (N, *shape) float32, and with their targets."""
Slowdown = Callable[[bytes, bytes, F4], float]


class VariantReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a variant came out.

    Attributes:
        variant: which.
        passes: what each did.
        method: of calibration that was chosen; empty for FP16.
        calibrations: what was measured of each method that was tried, on the samples of the choice.
        choice: how many samples the choice was made on, and that the gate's are others; or why none was made.
        gate: what was measured, on other samples than those of the choice.
        slowdown: CPU time of one sample over that of the FP32 file, on the machine that built it; None: not asked.
        blame: the most sensitive layers, when a limit was not kept.
        problems: why it is not shipped; empty: it is.
    """

    variant: Variant
    passes: tuple[Report, ...]
    method: str
    calibrations: dict[str, Gate]
    choice: str
    gate: Gate
    slowdown: float | None
    blame: tuple[Sensitivity, ...]
    problems: tuple[str, ...]

    @property
    def reason(self) -> str:
        """Why it is not shipped, in one line."""
        worst = self.blame[0] if self.blame else None
        layer = f"; most sensitive: {worst.layer} ({worst.weight}), {worst.sqnr_db:.1f} dB alone" if worst else ""
        how = f"; calibrated by {self.choice}" if self.choice else ""
        return f"{self.variant} is not written: {'; '.join(self.problems)}{layer}{how}"


def build_variant(
    variant: Variant,
    spec: TaskSpec,
    model: bytes,
    *,
    calibration: F4,
    held: Held,
    limits: Limits | None = None,
    slowdown: Slowdown | None = None,
) -> tuple[bytes | None, VariantReport]:
    """Build one variant of an FP32 file, and judge it.

    INT8 is calibrated by extremes and by percentiles. On a quarter of the held samples, drawn with a fixed seed, one
    that keeps the limits wins, then the better score, then the lower noise; the others judge it. Too few are all left
    to the gate, and extremes are taken. Windows of a series overlap, so there the two have other windows, but not
    other hours.

    Args:
        variant: which.
        spec: the task.
        model: self-contained FP32 file.
        calibration: (N, *shape) float32, samples of the task.
        held: others.
        limits: what it has to keep.
        slowdown: compares CPU times; ``int8-cpu`` must not be slower than FP32. None: not asked.

    Returns:
        The file, None when it is not to be shipped, and the report.
    """
    limits, target = limits or Limits(), _TARGET.get(variant)
    if target is None:
        chosen = _Chosen(*apply([simplify, to_half], model), "", {}, "", held, half_alone)
    else:
        chosen = _choose(spec, model, target, calibration, held, limits)
    made, gate = chosen.made, judge(spec, model, chosen.made, *chosen.left, limits)
    ratio = slowdown(model, made, held[0][:1]) if slowdown and variant == "int8-cpu" else None
    slow = (f"{ratio:.2f} times the CPU time of FP32 on this machine",) if ratio is not None and ratio >= 1 else ()
    blame: tuple[Sensitivity, ...] = ()
    if gate.problems:
        blame = tuple(sensitivity(simplify(model)[0], calibration[:_RANKED_ON], chosen.alone)[:_BLAMED])
    found = VariantReport(
        variant=variant,
        passes=tuple(chosen.reports),
        method=chosen.method,
        calibrations=chosen.tried,
        choice=chosen.choice,
        gate=gate,
        slowdown=ratio,
        blame=blame,
        problems=(*gate.problems, *slow),
    )
    return (None if found.problems else made), found


class _Chosen(NamedTuple):
    """A variant's file, how it came about, the samples that nothing was chosen on, and how to lower one layer alone."""

    made: bytes
    reports: list[Report]
    method: str
    tried: dict[str, Gate]
    choice: str
    left: Held
    alone: Callable[[str], Pass]


def _choose(spec: TaskSpec, model: bytes, target: Target, calibration: F4, held: Held, limits: Limits) -> _Chosen:
    """Calibrate in each way, and keep the better one: within the limits if there is one, then by score and noise."""

    def alone(method: Method) -> Callable[[str], Pass]:
        return lambda name: to_int8(target, method, calibration[:_RANKED_ON], only=[name])

    (x, samples), count = held, int(CHOSEN_ON * len(held[0]))
    if count < LEAST_CHOSEN_ON:
        made, reports = apply([simplify, to_int8(target, METHODS[0], calibration)], model)
        choice = (
            f"{METHODS[0]}, not compared: {len(x)} samples are too few to choose on some and judge on others, "
            f"{LEAST_CHOSEN_ON / CHOSEN_ON:.0f} are enough"
        )
        return _Chosen(made, reports, METHODS[0], {}, choice, held, alone(METHODS[0]))
    drawn = np.random.default_rng(0).permutation(len(x))
    first, rest = np.sort(drawn[:count]), np.sort(drawn[count:])
    files = {method: apply([simplify, to_int8(target, method, calibration)], model) for method in METHODS}
    tried: dict[str, Gate] = {
        method: judge(spec, model, made, x[first], samples.take(first), limits) for method, (made, _) in files.items()
    }
    best = min(METHODS, key=lambda m: (bool(tried[m].problems), tried[m].loss, -(tried[m].sqnr_db or np.inf)))
    choice = f"{best} by {count} samples, judged on {len(rest)} others"
    return _Chosen(*files[best], best, tried, choice, (x[rest], samples.take(rest)), alone(best))


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
