"""A gate lets a good variant through, names every limit that a bad one misses, and cannot be passed by NaN."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import numpy as np
import onnx
import pytest

from edge_models.samples import Samples
from edge_models.students import build_student
from edge_models.tasks import load_task, plugin_of
from edge_protocol.errors import DataError, IncompatibleError
from edge_protocol.task import TaskSpec
from export import build_artifact
from export.graph import inlined
from export.passes.gates import Limits, answers, judge, sqnr

Held = tuple[np.ndarray, Samples]


def with_bias(full: bytes, change: Callable[[np.ndarray], np.ndarray]) -> bytes:
    """The same file with another bias in its head."""
    model = onnx.load_from_string(full)
    tensor = next(one for one in model.graph.initializer if one.name == "head.bias")
    bias = change(onnx.numpy_helper.to_array(tensor)).astype(np.float32)
    tensor.CopyFrom(onnx.numpy_helper.from_array(bias, "head.bias"))
    return bytes(model.SerializeToString())


def test_the_same_file_passes(spec: TaskSpec, full: bytes, held: Held) -> None:
    """No difference, full agreement, no loss."""
    gate = judge(spec, full, full, *held, Limits())
    assert gate.problems == ()
    assert (gate.samples, gate.max_abs, gate.sqnr_db, gate.agreement, gate.loss) == (96, 0, None, 1, 0)
    assert gate.before == gate.after == 1


def test_what_is_off_is_measured(spec: TaskSpec, full: bytes, held: Held) -> None:
    """Every logit up by a hundredth: the classes stay, and the difference is what was added."""
    gate = judge(spec, full, with_bias(full, lambda bias: bias + 0.01), *held, Limits())
    assert gate.max_abs == pytest.approx(0.01, abs=1e-5)
    assert gate.mean_abs == pytest.approx(0.01, abs=1e-5)
    assert gate.agreement == 1


def test_every_limit_that_is_missed_is_named(spec: TaskSpec, full: bytes, held: Held) -> None:
    """A head that always answers the first class: noise, agreement and accuracy."""
    gate = judge(spec, full, with_bias(full, lambda bias: bias + np.eye(6)[5] * 100), *held, Limits())
    assert [text.split()[0] for text in gate.problems] == ["SQNR", "agreement", "accuracy"]
    assert gate.loss > 0.1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_never_pass(spec: TaskSpec, full: bytes, held: Held, value: float) -> None:
    """NaN and infinity in the logits miss the limit of noise."""
    gate = judge(spec, full, with_bias(full, lambda bias: bias + np.float32(value)), *held, Limits(loss=2, agreement=0))
    assert any("SQNR" in text for text in gate.problems)


def test_a_forecast_is_judged_by_its_error() -> None:
    """Loss is the share by which the error grows; there is no class to agree on."""
    spec = load_task("speed")
    samples = plugin_of(spec).simulate(spec, np.random.default_rng(0), 64)
    x = samples.raw.astype(np.float32)
    built = build_artifact(spec, "nano", build_student(spec, "nano"), x[:4])

    full = inlined(built.template, built.weights)
    gate = judge(spec, full, with_bias(full, lambda bias: bias + 3), x, samples, Limits())
    assert gate.headline == "mae"
    assert gate.agreement is None
    assert gate.loss == pytest.approx(gate.after / gate.before - 1)
    assert any("mae" in text for text in gate.problems)


def test_signal_over_noise_is_in_decibels() -> None:
    """A tenth of the signal is 20 dB; none is infinite; NaN is the worst there is."""
    one = np.ones((2, 3), np.float32)
    assert sqnr(one, one * 1.1) == pytest.approx(20, abs=1e-3)
    assert sqnr(one, one) == inf
    assert sqnr(one, one * np.nan) == -inf


def test_what_cannot_be_compared_is_named(full: bytes, held: Held) -> None:
    """No sample, samples of another task, a file that is no student."""
    with pytest.raises(DataError, match="no sample"):
        answers(full, held[0][:0])
    with pytest.raises(IncompatibleError, match="do not fit"):
        answers(full, held[0][:, :, :16])
    model = onnx.load_from_string(full)
    del model.graph.output[1]
    with pytest.raises(IncompatibleError, match="no exported student"):
        answers(model.SerializeToString(), held[0])
