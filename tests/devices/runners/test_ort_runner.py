"""ONNX Runtime: right weights at every optimisation, small, and clear about files that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import load, save

from devices.runners.ort_runner import OrtRunner
from edge_protocol.errors import IncompatibleError

RNG = np.random.default_rng(0)
WEIGHTS = {
    "conv.weight": RNG.normal(size=(64, 16, 3, 3)).astype(np.float16),
    "head.weight": RNG.normal(size=(64, 5)).astype(np.float16),
}
X = RNG.normal(size=(2, 16, 8, 8)).astype(np.float32)


def graph(batch: str | int = "batch", rows: int = 0) -> bytes:
    """Build a small student by hand: a convolution wide enough for the layout optimiser, ReLU, mean, and a head.

    Args:
        batch: of the graph's inputs and outputs.
        rows: that a reshape inside it wants; 0 for as many as there are.
    """
    tensors = []
    for name, array in WEIGHTS.items():
        tensor = onnx.numpy_helper.from_array(np.zeros(array.shape, np.float32), name)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="nowhere")
        tensors.append(tensor)
    nodes = [
        helper.make_node("Conv", ["input", "conv.weight"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Reshape", ["p", "shape"], ["features"]),
        helper.make_node("MatMul", ["features", "head.weight"], ["logits"]),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shape])
        for name, shape in (("input", (16, 8, 8)), ("features", (64,)), ("logits", (5,)))
    ]
    tensors.append(onnx.numpy_helper.from_array(np.array([rows, 64], np.int64), "shape"))
    made = helper.make_graph(nodes, "student", values[:1], values[1:], tensors)
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(made, opset_imports=opset, ir_version=10).SerializeToString()


TEMPLATE = graph()
PAYLOAD = save(WEIGHTS)


def by_hand(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute features and logits with NumPy."""
    kernel = WEIGHTS["conv.weight"].astype(np.float32)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    features = np.maximum(np.einsum("nchwij,ocij->nohw", patches, kernel), 0).mean(axis=(2, 3))
    return features, features @ WEIGHTS["head.weight"].astype(np.float32)


@pytest.mark.parametrize("batch", [1, 2])
def test_answers_are_computed_with_the_payloads_weights(batch: int) -> None:
    """Features and logits equal the arithmetic done by hand, for one sample and for two."""
    with OrtRunner(TEMPLATE, PAYLOAD) as runner:
        answer = runner.infer(X[:batch])
        assert runner.provider == "CPUExecutionProvider"
    features, logits = by_hand(X[:batch])
    assert np.allclose(answer.features, features, rtol=1e-4, atol=1e-4)
    assert np.allclose(answer.logits, logits, rtol=1e-4, atol=1e-3)


def test_weights_stay_right_while_others_are_loaded() -> None:
    """A runner owns what it was given: loading twenty others and dropping the payload changes no answer."""
    runner = OrtRunner(TEMPLATE, bytes(PAYLOAD))
    first = runner.infer(X)
    for seed in range(20):
        noise = {k: np.random.default_rng(seed).normal(size=v.shape).astype(np.float16) for k, v in WEIGHTS.items()}
        with OrtRunner(TEMPLATE, save(noise)) as other:
            assert not np.allclose(other.infer(X).logits, first.logits)
    assert np.array_equal(runner.infer(X).logits, first.logits)
    runner.close()


Change = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {**w, "conv.weight": w["conv.weight"][:32]}, "dimensions do not match"),
        (lambda w: {**w, "conv.weight": np.zeros((0,), np.float16)}, "dimensions do not match"),
        (lambda w: {"conv.weight": w["conv.weight"]}, "lacks 'head.weight'"),
        (lambda w: {**w, "bogus": np.zeros(3, np.float16)}, "bogus"),
        (lambda w: {**w, "head.weight": w["head.weight"] * np.float16(np.nan)}, "'head.weight'.*not a finite number"),
        (lambda w: {**w, "head.weight": np.full((64, 5), np.inf, np.float32)}, "not a finite number"),
        (lambda w: {**w, "head.weight": np.zeros((64, 5), np.int8)}, "data type does not match"),
        (lambda w: {}, "lacks"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change: Change, message: str) -> None:
    """Wrong shape, missing, unknown, not finite, not a float: each is named before a frame is answered."""
    with pytest.raises(IncompatibleError, match=message):
        OrtRunner(TEMPLATE, save(change(load(PAYLOAD))))


@pytest.mark.parametrize("payload", [b"", PAYLOAD[:7], PAYLOAD[:-1], b"\x00" * 64, b"\xff" * 64])
def test_a_damaged_payload_is_refused(payload: bytes) -> None:
    """Empty, truncated or random bytes are called unreadable."""
    with pytest.raises(IncompatibleError, match="cannot be read"):
        OrtRunner(TEMPLATE, payload)


@pytest.mark.parametrize("template", [b"", TEMPLATE[: len(TEMPLATE) // 2], b"\x00" * 64, b"not onnx"])
def test_a_damaged_template_is_refused(template: bytes) -> None:
    """Empty, truncated or random bytes give one clear error, not the runtime's."""
    with pytest.raises(IncompatibleError, match=f"template of {len(template)} bytes"):
        OrtRunner(template, PAYLOAD)


def foreign(operator: str, domain: str = "") -> bytes:
    """The template with another operator in a layer ``act``."""
    model = onnx.load_from_string(graph())
    layer = next(node for node in model.graph.node if node.op_type == "Relu")
    layer.name, layer.op_type, layer.domain = "act", operator, domain
    model.opset_import.add(domain="com.acme", version=1)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (foreign("Frobnicate"), r'"act", Frobnicate'),
        (foreign("Relu", "com.acme"), r"com\.acme:Relu"),
    ],
    ids=["unknown", "of another runtime"],
)
def test_an_operator_that_the_runtime_lacks_is_named_with_the_way_out(template: bytes, message: str) -> None:
    """To fetch it again would not help."""
    with pytest.raises(IncompatibleError, match=rf"{message}.*; replace this operator in the student, or use a newer"):
        OrtRunner(template, PAYLOAD)


@pytest.mark.parametrize(
    "x", [X[:0], X[:, :3], X[0], X.astype(np.float64), X.astype(np.uint8)], ids=["none", "shape", "single", "f8", "u1"]
)
def test_inputs_that_do_not_fit_are_refused(x: np.ndarray) -> None:
    """No sample, another shape or another type is an error of ours, with both sides named."""
    with OrtRunner(TEMPLATE, PAYLOAD) as runner, pytest.raises(IncompatibleError, match="student takes float32"):
        runner.infer(x)


def threads_now() -> int:
    """Count this process's threads."""
    return len(list(Path("/proc/self/task").iterdir()))


def test_a_runner_uses_as_many_threads_as_it_may() -> None:
    """One thread means that loading and running starts none."""
    before = threads_now()
    with OrtRunner(TEMPLATE, PAYLOAD, threads=1) as runner:
        runner.infer(X)
        assert threads_now() == before
    with OrtRunner(TEMPLATE, PAYLOAD, threads=3):
        assert threads_now() == before + 2


def test_a_fixed_batch_is_refused_with_the_way_out() -> None:
    """When it is loaded; a batch that is fixed inside the graph alone is found by the first other batch."""
    with pytest.raises(IncompatibleError, match="fixed batch of 1: export it with a dynamic one"):
        OrtRunner(graph(batch=1), PAYLOAD)
    with OrtRunner(graph(rows=2), PAYLOAD) as runner:
        assert runner.infer(X).logits.shape == (2, 5)
        with pytest.raises(IncompatibleError, match=r"does not answer \(1, 16, 8, 8\): .*export it again"):
            runner.infer(X[:1])
