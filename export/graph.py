"""Templates without torch: which weights one needs, put together with them into one file, and taken apart again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from math import prod

import msgspec
import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto
from safetensors.numpy import save

from devices.runners.payload import read_payload
from edge_protocol.errors import ExportError

INPUT = "input"
OUTPUTS = ("features", "logits")
LOCATION = "roadcast-weights-payload"
"""Where the external weights are said to be. No such file exists: the runner hands them over in memory."""


def parsed_file(model: bytes) -> ModelProto:
    """Parse a file, or a template.

    Raises:
        ExportError: not an ONNX file, or one whose weights are of a type that ONNX does not know.
    """
    try:
        parsed = onnx.load_from_string(model)
    except Exception as error:  # protobuf's error type differs between its implementations
        raise ExportError(f"{len(model)} bytes are not an ONNX file: {error}; build or fetch it again") from error
    if not parsed.graph.node:
        raise ExportError(f"an ONNX file of {len(model)} bytes has no layer: truncated? build or fetch it again")
    for tensor in weights_of(parsed.graph):
        if tensor.data_type not in TensorProto.DataType.values():
            raise ExportError(
                f"weight {tensor.name!r} holds numbers of type {tensor.data_type}, which ONNX does not know: build or "
                "fetch it again"
            )
    return parsed


def layers_of(graph: GraphProto) -> Iterator[NodeProto]:
    """Every layer, those of branches and loop bodies after the one that holds them."""
    for node in graph.node:
        yield node
        for inner in _within(node):
            yield from layers_of(inner)


def weights_of(graph: GraphProto) -> Iterator[TensorProto]:
    """Every weight, those of branches and loop bodies too; of a sparse one the numbers that are not 0."""
    yield from graph.initializer
    yield from (sparse.values for sparse in graph.sparse_initializer)
    for node in graph.node:
        for inner in _within(node):
            yield from weights_of(inner)


def _within(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def read_template(template: bytes) -> ModelProto:
    """Parse a template.

    Raises:
        ExportError: not an ONNX file, or one that holds its weights itself.
    """
    model = parsed_file(template)
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


class Contents(msgspec.Struct, frozen=True):
    """What is in an ONNX file.

    Attributes:
        opset: of ONNX.
        inputs, outputs: name to shape; a name stands for a size that is free.
        operators: operator to how many, in branches and loop bodies too.
        numbers: type to how many numbers of it the weights hold, wherever they lie.
    """

    opset: int
    inputs: dict[str, list[int | str]]
    outputs: dict[str, list[int | str]]
    operators: dict[str, int]
    numbers: dict[str, int]


def contents(model: bytes) -> Contents:
    """Look into a template or a self-contained file.

    Raises:
        ExportError: not an ONNX file.
    """
    parsed = parsed_file(model)
    graph, numbers = parsed.graph, Counter[str]()
    for tensor in weights_of(graph):
        numbers[TensorProto.DataType.Name(tensor.data_type).lower()] += prod(tensor.dims)
    opset = next((entry.version for entry in parsed.opset_import if entry.domain in {"", "ai.onnx"}), 0)
    operators = Counter(node.op_type for node in layers_of(graph))
    return Contents(opset, _shapes(graph.input), _shapes(graph.output), dict(sorted(operators.items())), dict(numbers))


def _shapes(values: Iterable[ValueInfoProto]) -> dict[str, list[int | str]]:
    return {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim] for value in values
    }


def inlined(template: bytes, payload: bytes) -> bytes:
    """Return one self-contained ONNX file: the template with a payload's weights in it, of the types it declares.

    Raises:
        ExportError: not a template, or a weight is missing.
        IncompatibleError: the payload is damaged.
    """
    model, weights = read_template(template), read_payload(payload)
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            if tensor.name not in weights:
                raise ExportError(
                    f"the weights lack {tensor.name!r}, which the template needs: they belong to another one"
                )
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            tensor.CopyFrom(onnx.numpy_helper.from_array(weights[tensor.name].astype(dtype), tensor.name))
    return bytes(model.SerializeToString(deterministic=True))


def outlined(model: bytes) -> tuple[bytes, bytes]:
    """Take a self-contained file apart: a template, and its weights payload with the types that the graph declares.

    Shapes and other int64 constants stay in the template: ONNX Runtime needs them before any weight is there.
    """
    parsed = onnx.load_from_string(model)
    payload, offset = {}, 0
    for tensor in parsed.graph.initializer:
        if tensor.data_type == TensorProto.INT64:
            continue
        array = payload[tensor.name] = np.asarray(onnx.numpy_helper.to_array(tensor), order="C")
        tensor.CopyFrom(TensorProto(name=tensor.name, dims=array.shape, data_type=tensor.data_type))
        place_outside(tensor, offset, array.nbytes)
        offset += array.nbytes
    return bytes(parsed.SerializeToString(deterministic=True)), save(payload)


def place_outside(tensor: TensorProto, offset: int, size: int) -> None:
    """Make a tensor external: `size` bytes at `offset` of the payload."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", LOCATION), ("offset", offset), ("length", size)):
        tensor.external_data.add(key=key, value=str(value))
