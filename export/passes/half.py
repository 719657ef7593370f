"""FP16 numbers inside, FP32 at the edges: for GPUs and TensorRT; a CPU is slower with it (measured: 1.4 times)."""

from __future__ import annotations

import numpy as np
import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

from edge_protocol.errors import ExportError
from export.passes.base import Pass, Report, checked, report

MOST = 65504.0
"""The largest number in FP16."""


def to_half(model: bytes) -> tuple[bytes, Report]:
    """Turn weights and arithmetic of a file into FP16; inputs and outputs stay FP32.

    Raises:
        ExportError: it is refused, or a weight is too large.
    """
    parsed = checked(model)
    for tensor in parsed.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and abs(onnx.numpy_helper.to_array(tensor)).max(initial=0) > MOST:
            raise ExportError(f"weight {tensor.name!r} is above {MOST:g} and does not fit FP16; keep this file in FP32")
    half = convert_float_to_float16(parsed, keep_io_types=True)
    _sort(half.graph)
    after = half.SerializeToString(deterministic=True)
    checked(after)
    note = "a CPU computes FP16 in FP32, so that a gate judges the rounded weights only; judge again on the target"
    return after, report("fp16", model, after, note)


def half_alone(layer: str) -> Pass:
    """Make a pass that rounds one layer's weights and answers to FP16 and back; all else stays FP32."""

    def rounded(model: bytes) -> tuple[bytes, Report]:
        parsed = checked(model)
        graph = parsed.graph
        node = next(node for node in graph.node if node.name == layer)
        for tensor in graph.initializer:
            if tensor.name in node.input and tensor.data_type == onnx.TensorProto.FLOAT:
                weights = onnx.numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
                tensor.CopyFrom(onnx.numpy_helper.from_array(weights, tensor.name))
        out = node.output[0]
        node.output[0], at = f"{out}/full", list(graph.node).index(node) + 1
        half, full = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
        graph.node.insert(at, onnx.helper.make_node("Cast", [f"{out}/half"], [out], f"{layer}/back", to=full))
        graph.node.insert(at, onnx.helper.make_node("Cast", [f"{out}/full"], [f"{out}/half"], f"{layer}/half", to=half))
        after = parsed.SerializeToString(deterministic=True)
        return after, report(f"fp16 of {layer}", model, after, "")

    return rounded


def _sort(graph: onnx.GraphProto) -> None:
    """Put every layer behind those it reads from: the converter appends its casts of the inputs at the end."""
    known = {"", *(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer)}
    left, ordered = list(graph.node), []
    while ready := [node for node in left if known.issuperset(node.input)]:
        ordered += ready
        known.update(name for node in ready for name in node.output)
        left = [node for node in left if not known.issuperset(node.output)]
    del graph.node[:]
    graph.node.extend(ordered + left)
