"""What a pass is, how passes follow each other, and the checks every file goes through first; owns no change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto

from edge_protocol.errors import ExportError
from export.graph import layers_of, parsed_file, weights_of


class Report(msgspec.Struct, frozen=True):
    """What a pass did.

    Attributes:
        name: of the pass.
        bytes: size before and after.
        operators: operator → how many more of it there are; those without a change are left out.
        notes: for people.
    """

    name: str
    bytes: tuple[int, int]
    operators: dict[str, int]
    notes: tuple[str, ...] = ()


_FLOATING = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
Pass = Callable[[bytes], tuple[bytes, Report]]


def apply(passes: Sequence[Pass], model: bytes) -> tuple[bytes, list[Report]]:
    """Send a file through passes, in order.

    Raises:
        ExportError: a pass refuses it.
    """
    reports = []
    for one in passes:
        model, report = one(model)
        reports.append(report)
    return model, reports


def report(name: str, before: bytes, after: bytes, *notes: str) -> Report:
    """Say what changed between two files."""
    was, now = (Counter(node.op_type for node in onnx.load_from_string(model).graph.node) for model in (before, after))
    changed = {operator: now[operator] - was[operator] for operator in sorted(was | now)}
    return Report(name, (len(before), len(after)), {name: n for name, n in changed.items() if n}, notes)


def checked(model: bytes) -> ModelProto:
    """Parse a file and refuse what no pass can work on.

    Raises:
        ExportError: corrupted, a template without its weights, an unknown operator (named with its layer), a fixed
            batch, a weight that is not a finite number, or a constant that is none.
    """
    parsed = parsed_file(model)
    _check_operators(parsed)
    _check_weights(parsed)
    try:
        onnx.checker.check_model(parsed)
    except onnx.checker.ValidationError as error:
        reason = str(error).strip().splitlines()[0]
        raise ExportError(f"not a valid ONNX file: {reason}; export or fetch it again") from error
    for value in parsed.graph.input:
        first = value.type.tensor_type.shape.dim[:1]
        if first and not first[0].dim_param:
            raise ExportError(
                f"graph input {value.name!r} has a fixed batch of {first[0].dim_value}: export it with a dynamic batch"
            )
    return parsed


def _check_operators(parsed: ModelProto) -> None:
    opsets = {entry.domain: entry.version for entry in parsed.opset_import}
    for node in layers_of(parsed.graph):
        if node.domain in {"", "ai.onnx"} and not onnx.defs.has(node.op_type, opsets.get("", 1), ""):
            raise ExportError(
                f"{_layer(node)}: opset {opsets.get('', 1)} has no operator {node.op_type!r}; "
                "replace it in the student by operators that ONNX has, or export to a newer opset"
            )
        if node.domain not in {"", "ai.onnx"}:
            raise ExportError(
                f"{_layer(node)}: operator {node.domain}.{node.op_type} is not of ONNX and runs "
                "on one runtime only; start from the file before that runtime optimised it"
            )


def _check_weights(parsed: ModelProto) -> None:
    for tensor in weights_of(parsed.graph):
        if not np.isfinite(_numbers(tensor, f"weight {tensor.name!r}")).all():
            raise ExportError(f"weight {tensor.name!r} holds NaN or infinity: training diverged; lower its rate")
    for node in layers_of(parsed.graph):
        for values in _constants(node):
            if np.isnan(values).any():  # infinity is what a mask or a limit is made of
                raise ExportError(f"{_layer(node)} holds NaN: training diverged; lower its rate, and export it again")


def _constants(node: NodeProto) -> Iterator[npt.NDArray[Any]]:
    """Numbers that a layer holds itself."""
    for attribute in node.attribute:
        yield np.array([attribute.f, *attribute.floats])
        sparse = [attribute.sparse_tensor, *attribute.sparse_tensors]
        for tensor in (attribute.t, *attribute.tensors, *(one.values for one in sparse)):
            yield _numbers(tensor, f"the constant of {_layer(node)}")


def _numbers(tensor: TensorProto, name: str) -> npt.NDArray[Any]:
    """Of floating point; of another type none, but they are read as well."""
    if tensor.data_location == TensorProto.EXTERNAL:
        raise ExportError(f"{name} is not in the file: put template and payload together first ('export.inlined')")
    if not tensor.data_type:
        return np.zeros(0)
    try:
        values = onnx.numpy_helper.to_array(tensor)
    except Exception as error:  # numpy's and onnx's share no base class of their own
        raise ExportError(f"{name} cannot be read: {error}; export or fetch it again") from error
    return values if tensor.data_type in _FLOATING else np.zeros(0)


def _layer(node: NodeProto) -> str:
    return f"layer {node.name or ', '.join(node.output)!r}"
