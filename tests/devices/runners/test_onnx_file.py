"""Any ONNX file: run as it is, and refused with one clear error when it cannot be."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from devices.runners.onnx_file import OnnxFile
from devices.runners.ort_proof import providers_that_ran
from edge_protocol.errors import DeviceError, IncompatibleError
from tests.devices.runners.test_ort_runner import TEMPLATE

RNG = np.random.default_rng(0)


def doubled(shape: list[int | str], *, operator: str = "Add", element: int = TensorProto.FLOAT) -> bytes:
    """Make a file that adds its input to itself."""
    values = [helper.make_tensor_value_info(name, element, shape) for name in ("x", "y")]
    node = helper.make_node(operator, ["x", "x"], ["y"], name="the_layer")
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def test_a_file_is_run_as_it_is() -> None:
    """Its outputs are its own, for one sample and for three."""
    with OnnxFile(doubled(["n", 4])) as model:
        for batch in (1, 3):
            inputs = model.inputs(batch, RNG)
            assert inputs["x"].shape == (batch, 4)
            assert np.array_equal(model.infer(inputs)[0], inputs["x"] * 2)


def test_a_fixed_batch_takes_that_batch_only() -> None:
    """One sample fits a batch fixed to one; eight do not, and the message says what to do."""
    with OnnxFile(doubled([1, 4])) as model:
        assert model.inputs(1, RNG)["x"].shape == (1, 4)
        with pytest.raises(IncompatibleError, match=r"'x' has a fixed batch of 1.*dynamic batch"):
            model.inputs(8, RNG)


def test_a_graph_that_does_not_go_together_says_so_when_asked() -> None:
    """It loads, for its sizes are free, and then multiplies what cannot be: one error with the inputs' shapes."""
    with (
        OnnxFile(doubled(["n", 4], operator="MatMul")) as model,
        pytest.raises(IncompatibleError, match=r"does not answer x \(3, 4\): .*export it again"),
    ):
        model.infer(model.inputs(3, RNG))


@pytest.mark.parametrize(
    "model", [doubled(["n", "width"]), doubled(["n", 4], element=TensorProto.INT64)], ids=["free", "int64"]
)
def test_inputs_that_cannot_be_drawn_are_named(model: bytes) -> None:
    """A free size beside the batch, and integers, which may be indices."""
    with OnnxFile(model) as loaded, pytest.raises(IncompatibleError, match="'x' is tensor"):
        loaded.inputs(1, RNG)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (b"", "cannot be loaded"),
        (b"not onnx", "cannot be loaded"),
        (doubled(["n", 4])[:-20], "cannot be loaded"),
        (TEMPLATE.replace(b"nowhere", b"roadcast-weights-payload"), "template without its weights"),
        (doubled(["n", 4], operator="Frobnicate"), "Frobnicate.*replace this operator"),
    ],
    ids=["empty", "text", "truncated", "template", "operator"],
)
def test_a_file_that_cannot_run_is_refused(model: bytes, message: str) -> None:
    """Empty, random, truncated, without weights, with an operator nobody knows: one error, with what to do."""
    with pytest.raises(IncompatibleError, match=message):
        OnnxFile(model)


def test_what_ran_is_what_the_runtime_recorded() -> None:
    """All nodes ran on the CPU, as the profiler saw."""
    model = doubled(["n", 4])
    ran = providers_that_ran(
        lambda profile: OnnxFile(model, profile=profile).session, {"x": np.ones((1, 4), np.float32)}
    )
    assert ran == {"CPUExecutionProvider": 1.0}


def test_a_runtime_that_records_no_node_proves_nothing() -> None:
    """An empty graph runs no node, so no provider is named."""
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])]
    graph = helper.make_graph([], "g", values, values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()
    with pytest.raises(DeviceError, match="recorded no node"):
        providers_that_ran(lambda profile: OnnxFile(model, profile=profile).session, {"x": np.ones((1, 4), np.float32)})
