"""Simplified, FP16 and INT8 files are what they say, and answer nearly as the FP32 file does."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edge_models.samples import Samples
from edge_protocol.errors import ExportError
from export.graph import outlined, weight_shapes
from export.passes.gates import answers, sqnr
from export.passes.half import half_alone, to_half
from export.passes.int8 import METHODS, Method, Target, to_int8
from export.passes.sensitivity import sensitivity
from export.passes.simplify import simplify

Held = tuple[np.ndarray, Samples]
TYPES = {"cpu": TensorProto.UINT8, "trt": TensorProto.INT8}


def initializers(model: bytes) -> dict[str, TensorProto]:
    """Name → tensor."""
    return {tensor.name: tensor for tensor in onnx.load_from_string(model).graph.initializer}


def test_simplifying_changes_no_answer_and_no_weights_name(full: bytes, held: Held) -> None:
    """Weights keep their names; a pair of layers that undo each other is gone."""
    model = onnx.load_from_string(full)
    for node in model.graph.node:
        node.input[:] = ["twice" if name == "input" else name for name in node.input]
    for made in (helper.make_node("Identity", ["once"], ["twice"]), helper.make_node("Identity", ["input"], ["once"])):
        model.graph.node.insert(0, made)
    simple, report = simplify(model.SerializeToString())
    assert report.operators["Identity"] == -2
    assert initializers(full).keys() <= initializers(simple).keys()
    assert np.allclose(answers(simple, held[0]), answers(full, held[0]), atol=1e-5)


def test_half_precision_halves_the_weights_and_keeps_the_edges(full: bytes, held: Held) -> None:
    """Weights are FP16, inputs and outputs FP32, the file is valid; the note says what a CPU cannot judge."""
    made, report = to_half(full)
    onnx.checker.check_model(onnx.load_from_string(made))
    assert initializers(made)["head.weight"].data_type == TensorProto.FLOAT16
    graph = onnx.load_from_string(made).graph
    assert {v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)} == {TensorProto.FLOAT}
    assert sqnr(answers(full, held[0]), answers(made, held[0])) > 50
    assert "target" in report.notes[0]


def test_a_weight_too_large_for_half_precision_is_named(full: bytes) -> None:
    """70,000 is no FP16 number."""
    model = onnx.load_from_string(full)
    tensor = next(one for one in model.graph.initializer if one.name == "head.bias")
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(6, 7e4, np.float32), "head.bias"))
    with pytest.raises(ExportError, match=r"head\.bias.* does not fit FP16"):
        to_half(model.SerializeToString())


@pytest.mark.parametrize("target", ["cpu", "trt"])
@pytest.mark.parametrize("method", METHODS)
def test_int8_files_are_what_their_target_takes(full: bytes, held: Held, target: Target, method: Method) -> None:
    """Types of activations, a float bias and zero zero points for TensorRT, an FP32 head, close answers, a report."""
    made, report = to_int8(target, method, held[0][:64])(simplify(full)[0])
    assert sqnr(answers(full, held[0]), answers(made, held[0])) > 20
    assert report.operators["QuantizeLinear"] > 10
    assert report.notes == (f"{method} over 64 samples",)
    found = initializers(made)
    assert found["head.weight"].data_type == TensorProto.FLOAT
    assert found["trunk.0.conv.weight_quantized"].data_type == TensorProto.INT8
    zero_points = [
        found[node.input[2]] for node in onnx.load_from_string(made).graph.node if node.op_type == "QuantizeLinear"
    ]
    assert {tensor.data_type for tensor in zero_points} == {TYPES[target]}
    integers = [tensor for tensor in found.values() if tensor.data_type == TensorProto.INT32]
    assert bool(integers) == (target == "cpu")
    if target == "trt":
        assert not any(onnx.numpy_helper.to_array(tensor).any() for tensor in zero_points)


def test_the_same_samples_give_the_same_bytes(full: bytes, held: Held) -> None:
    """Nothing of the machine or the time is in the file; nor is any word said on stdout."""
    one = to_int8("cpu", "minmax", held[0][:32])
    assert one(full)[0] == one(full)[0]


@pytest.mark.parametrize("count", [1, 37, 66])
def test_any_number_of_samples_will_do(full: bytes, held: Held, count: int) -> None:
    """One, a prime, more than a batch and no multiple of it: percentiles take them all."""
    assert to_int8("cpu", "percentile", held[0][:count])(full)[1].notes == (f"percentile over {count} samples",)


def test_the_quantiser_says_nothing(full: bytes, held: Held, capsys: pytest.CaptureFixture[str]) -> None:
    """Calibration by percentiles prints its progress; a command with --json must not."""
    to_int8("cpu", "percentile", held[0][:32])(full)
    assert capsys.readouterr().out == ""


def test_percentiles_are_no_second_name_of_extremes(full: bytes, held: Held) -> None:
    """Calibrated on the same samples, the ranges of activations differ: there is something to choose from."""
    files = [to_int8("cpu", method, held[0][:32])(simplify(full)[0])[0] for method in METHODS]
    assert len(set(files)) == len(METHODS)


@pytest.mark.parametrize("x", [np.zeros((0, 3, 32, 32), np.float32), np.full((2, 3, 32, 32), np.nan, np.float32)])
def test_int8_needs_real_samples(x: np.ndarray) -> None:
    """None, and NaN."""
    with pytest.raises(ExportError, match="samples of the task"):
        to_int8("cpu", "minmax", x)


def test_a_template_of_int8_holds_no_weights(full: bytes, held: Held) -> None:
    """Weights, scales and zero points are in the payload; other samples change the payload and not the template."""
    files = [
        outlined(to_int8("cpu", "minmax", held[0][part])(simplify(full)[0])[0]) for part in (slice(32), slice(32, 64))
    ]
    (template, payload), (other, different) = files
    assert template == other
    assert payload != different
    assert weight_shapes(template)["trunk.0.conv.weight_quantized"] == (16, 3, 3, 3)
    assert len(template) < 30_000


def test_the_layer_that_fp16_hurts_is_found(full: bytes, held: Held) -> None:
    """A kernel that is too fine for FP16 is rounded to nothing there; alone in FP16, its layer is ranked first."""
    model = onnx.load_from_string(simplify(full)[0])
    name = "trunk.3.body.0.conv.weight"
    tensor = next(one for one in model.graph.initializer if one.name == name)
    after = next(node for node in model.graph.node if node.input[1:2] == [name])
    kernel = onnx.numpy_helper.to_array(tensor) * np.float32(1e-7)
    tensor.CopyFrom(onnx.numpy_helper.from_array(kernel, name))
    big = onnx.numpy_helper.from_array(np.float32(6e4), "big")
    model.graph.initializer.append(big)
    out = after.output[0]
    after.output[0] = f"{out}.small"
    model.graph.node.insert(
        list(model.graph.node).index(after) + 1, onnx.helper.make_node("Mul", [after.output[0], "big"], [out], "again")
    )
    ranked = sensitivity(model.SerializeToString(), held[0][:16], half_alone)
    assert ranked[0].weight == name
    assert ranked[0].sqnr_db < ranked[1].sqnr_db - 5


def test_the_layer_that_int8_hurts_is_found(full: bytes, held: Held) -> None:
    """A kernel whose channels share one huge outlier each loses its small weights, and is ranked first."""
    model = onnx.load_from_string(simplify(full)[0])
    name = "trunk.3.body.0.conv.weight"
    tensor = next(one for one in model.graph.initializer if one.name == name)
    kernel = onnx.numpy_helper.to_array(tensor).copy()
    kernel[:, 0, 0, 0] = 60
    tensor.CopyFrom(onnx.numpy_helper.from_array(kernel, name))
    x = held[0][:16]
    ranked = sensitivity(model.SerializeToString(), x, lambda layer: to_int8("cpu", "minmax", x, only=[layer]))
    assert ranked[0].weight == name
    assert ranked[0].sqnr_db < ranked[-1].sqnr_db
    assert "head.weight" not in {one.weight for one in ranked}
