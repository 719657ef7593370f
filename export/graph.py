"""Reading a template without torch: which weights it needs, and one file of graph and weights for other tools."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, TensorProto

from edge_protocol.errors import ExportError


def read_template(template: bytes) -> ModelProto:
    """Parse a template.

    Raises:
        ExportError: not an ONNX file, or one that holds its weights itself.
    """
    try:
        model = onnx.load_from_string(template)
    except Exception as error:  # protobuf's error type differs between its implementations
        raise ExportError(
            f"template of {len(template)} bytes is not an ONNX file: {error}; build or fetch it again"
        ) from error
    if not any(tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise ExportError("this ONNX file names no external weights, so it is no template: use 'roadcast export build'")
    return model


def weight_shapes(template: bytes) -> dict[str, tuple[int, ...]]:
    """Return name → shape of every weight that a template needs, in the graph's order.

    Raises:
        ExportError: not a template.
    """
    initializers = read_template(template).graph.initializer
    return {t.name: tuple(t.dims) for t in initializers if t.data_location == TensorProto.EXTERNAL}


def inlined(template: bytes, weights: Mapping[str, npt.NDArray[np.generic]]) -> bytes:
    """Return one self-contained ONNX file: the template with these weights in it, as fp32.

    Raises:
        ExportError: not a template, or a weight is missing.
    """
    model = read_template(template)
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            if tensor.name not in weights:
                raise ExportError(
                    f"the weights lack {tensor.name!r}, which the template needs: they belong to another one"
                )
            tensor.CopyFrom(onnx.numpy_helper.from_array(weights[tensor.name].astype(np.float32), tensor.name))
    return bytes(model.SerializeToString(deterministic=True))
