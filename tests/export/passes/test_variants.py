"""A variant that keeps its limits is built, one that does not is not, and the report says why and which layer."""

from __future__ import annotations

import numpy as np
import pytest

from devices.runners.onnx_file import OnnxFile
from devices.runners.ort_runner import OrtRunner
from edge_models.samples import Samples
from edge_protocol.errors import IncompatibleError, ParityError
from edge_protocol.task import TaskSpec
from export import BuiltArtifact
from export.golden import check_golden
from export.passes.base import apply
from export.passes.gates import Limits, judge
from export.passes.int8 import METHODS, Target, to_int8
from export.passes.ship import check_same, to_artifact
from export.passes.simplify import simplify
from export.passes.variants import VARIANTS, Variant, build_variant, cpu_slowdown

Held = tuple[np.ndarray, Samples]


@pytest.fixture(scope="module")
def quantised(spec: TaskSpec, full: bytes, held: Held) -> bytes:
    """The INT8 file for CPUs."""
    made, report = build_variant("int8-cpu", spec, full, calibration=held[0][:32], held=held, limits=Limits(loss=0.2))
    assert made is not None, report.reason
    return made


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_within_its_limits_is_built(spec: TaskSpec, full: bytes, held: Held, variant: Variant) -> None:
    """Each of the three, through its passes; calibration was chosen; no layer is blamed."""
    made, report = build_variant(variant, spec, full, calibration=held[0][:32], held=held, limits=Limits(loss=0.2))
    assert made is not None
    assert [one.name for one in report.passes] == ["simplify", variant]
    assert report.method in ({""} if variant == "fp16" else {"minmax", "percentile"})
    assert not report.blame
    assert not report.problems


def test_a_variant_beyond_its_limits_is_not_built(spec: TaskSpec, full: bytes, held: Held) -> None:
    """90 dB are too much to ask of INT8: no file, and the reason names the layer that is most sensitive."""
    made, report = build_variant(
        "int8-cpu", spec, full, calibration=held[0][:16], held=held, limits=Limits(sqnr_db=90, loss=1)
    )
    assert made is None
    assert report.problems == (f"SQNR {report.gate.sqnr_db:.1f} dB, at least 90",)
    assert len(report.blame) == 5
    assert report.blame[0].weight in report.reason


def test_int8_that_is_slower_is_not_built(spec: TaskSpec, full: bytes, held: Held) -> None:
    """Only for CPUs, and only when speed is asked for; the ratio is in the report."""
    kept = {"calibration": held[0][:16], "held": held, "limits": Limits(loss=0.2), "slowdown": lambda *_: 1.25}
    made, report = build_variant("int8-cpu", spec, full, **kept)  # type: ignore[arg-type]
    assert made is None
    assert report.slowdown == 1.25
    assert "1.25 times the CPU time" in report.reason
    made, report = build_variant("int8-trt", spec, full, **kept)  # type: ignore[arg-type]
    assert made is not None
    assert report.slowdown is None


@pytest.mark.parametrize(("variant", "target", "wild"), [("int8-cpu", "cpu", 1), ("int8-trt", "trt", 200)])
def test_the_better_calibration_is_chosen_on_other_samples_than_judge_it(
    spec: TaskSpec, full: bytes, held: Held, variant: Variant, target: Target, wild: float
) -> None:
    """A quarter compares extremes and percentiles, by loss and then by noise; the rest, and they alone, judge the best.

    Also when one sample to calibrate on is wild, and the same each time.
    """
    x, limits = held[0][:32].copy(), Limits(sqnr_db=0, loss=1, agreement=0)
    x[0] *= wild
    drawn = np.random.default_rng(0).permutation(len(held[0]))
    first, rest = ((held[0][part], held[1].take(part)) for part in (np.sort(drawn[:24]), np.sort(drawn[24:])))
    files = {method: apply([simplify, to_int8(target, method, x)], full)[0] for method in METHODS}
    gates = {method: judge(spec, full, file, *first, limits) for method, file in files.items()}
    _, report = build_variant(variant, spec, full, calibration=x, held=held, limits=limits)
    best = min(METHODS, key=lambda each: (bool(gates[each].problems), gates[each].loss, -(gates[each].sqnr_db or 0)))
    assert report.calibrations == gates
    assert report.method == best
    assert report.gate == judge(spec, full, files[best], *rest, limits)
    assert report.choice == f"{best} by 24 samples, judged on 72 others"


@pytest.mark.parametrize(("count", "compared"), [(63, False), (64, True), (1, False)])
def test_too_few_samples_choose_nothing_and_all_judge(
    spec: TaskSpec, full: bytes, held: Held, count: int, compared: bool
) -> None:
    """Extremes are taken, the report says so, and the gate has every sample."""
    few = held[0][:count], held[1].take(slice(count))
    _, report = build_variant("int8-cpu", spec, full, calibration=held[0][:16], held=few, limits=Limits(sqnr_db=90))
    assert bool(report.calibrations) == compared
    assert report.gate.samples == (48 if compared else count)
    if not compared:
        says = f"minmax, not compared: {count} samples are too few to choose on some and judge on others, 64 are enough"
        assert (report.method, report.choice) == ("minmax", says)
        assert report.reason.endswith(f"; calibrated by {says}")


def test_fp16_has_nothing_to_choose(spec: TaskSpec, full: bytes, held: Held) -> None:
    """It is judged on every sample."""
    _, report = build_variant("fp16", spec, full, calibration=held[0][:16], held=held)
    assert (report.method, report.calibrations, report.choice, report.gate.samples) == ("", {}, "", len(held[0]))


def test_a_file_is_as_fast_as_itself(full: bytes, held: Held) -> None:
    """The ratio is a positive number; how large it is depends on the machine."""
    assert cpu_slowdown(full, full, held[0][:1]) > 0


def test_int8_becomes_an_artifact_as_any_other(
    full: bytes, quantised: bytes, held: Held, artifact: BuiltArtifact
) -> None:
    """Loaded by the device's runner, checked by its golden answers, smaller, with the FP32 head in its payload."""
    made = to_artifact(full, quantised, held[0], artifact.parameters)
    with OrtRunner(made.template, made.weights) as runner:
        check_golden(runner, made.golden)
    assert len(made.weights) < 0.7 * len(artifact.weights)
    assert 0 < made.parity.logits < 1


def test_fp32_weights_do_not_fit_an_int8_template(
    full: bytes, quantised: bytes, held: Held, artifact: BuiltArtifact
) -> None:
    """A payload for another template is refused, either way round, before a frame is answered."""
    made = to_artifact(full, quantised, held[0], artifact.parameters)
    for template, weights in ((made.template, artifact.weights), (artifact.template, made.weights)):
        with pytest.raises(IncompatibleError, match="check that both come from the same release"):
            OrtRunner(template, weights)


def test_an_artifact_that_answers_otherwise_is_no_artifact(
    full: bytes, quantised: bytes, held: Held, artifact: BuiltArtifact
) -> None:
    """Should a runtime treat external weights differently, nothing is written: here the file is another one."""
    with OrtRunner(artifact.template, artifact.weights) as runner, OnnxFile(full) as same, OnnxFile(quantised) as other:
        check_same(runner, same, held[0])
        with pytest.raises(ParityError, match="features at batch 1 change when the file is taken apart"):
            check_same(runner, other, held[0])
