"""A small student, made by hand: a convolution with a bias, ReLU, mean, and a head; its template and a payload."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper
from safetensors.numpy import save

RNG = np.random.default_rng(0)
WEIGHTS = {
    "conv.weight": RNG.normal(size=(64, 16, 3, 3)).astype(np.float16),
    "conv.bias": RNG.normal(size=64).astype(np.float16),
    "head.weight": RNG.normal(size=(64, 5)).astype(np.float16),
}
X = RNG.normal(size=(5, 16, 8, 8)).astype(np.float32)


def graph(location: str = "roadcast-weights-payload", operator: str = "Relu", batch: str | int = "batch") -> bytes:
    """Build the template."""
    tensors, offset = [], 0
    for name, array in WEIGHTS.items():
        size = 4 * array.size
        tensor = TensorProto(name=name, dims=array.shape, data_type=TensorProto.FLOAT)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", offset), ("length", size)):
            tensor.external_data.add(key=key, value=str(value))
        tensors.append(tensor)
        offset += size
    nodes = [
        helper.make_node("Conv", ["input", "conv.weight", "conv.bias"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node(operator, ["c"], ["r"], name="act"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["features"]),
        helper.make_node("MatMul", ["features", "head.weight"], ["logits"]),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shape])
        for name, shape in (("input", (16, 8, 8)), ("features", (64,)), ("logits", (5,)))
    ]
    made = helper.make_graph(nodes, "student", values[:1], values[1:], tensors)
    opset = [helper.make_opsetid("", 18)]
    data: bytes = helper.make_model(made, opset_imports=opset, ir_version=10).SerializeToString()
    return data


def other_weights(seed: int = 1) -> dict[str, np.ndarray]:
    """Weights of a later release."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=array.shape).astype(np.float16) for name, array in WEIGHTS.items()}


TEMPLATE = graph()
PAYLOAD = save(WEIGHTS)
