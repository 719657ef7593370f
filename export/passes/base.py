"""What a pass is, how passes follow each other, and the checks every file goes through first; owns no change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import onnx
from onnx import ModelProto, TensorProto

from edge_protocol.errors import ExportError
from export.graph import parsed_file


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
            batch, or a weight that is not a finite number.
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
    for node in parsed.graph.node:
        if node.domain in {"", "ai.onnx"} and not onnx.defs.has(node.op_type, opsets.get("", 1), ""):
            raise ExportError(
                f"layer {node.name or node.output[0]!r}: opset {opsets.get('', 1)} has no operator {node.op_type!r}; "
                "replace it in the student by operators that ONNX has, or export to a newer opset"
            )
        if node.domain not in {"", "ai.onnx"}:
            raise ExportError(
                f"layer {node.name or node.output[0]!r}: operator {node.domain}.{node.op_type} is not of ONNX and runs "
                "on one runtime only; start from the file before that runtime optimised it"
            )


def _check_weights(parsed: ModelProto) -> None:
    for tensor in parsed.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            raise ExportError(
                f"weight {tensor.name!r} is not in the file: put template and payload together first ('export.inlined')"
            )
        if tensor.data_type in {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE}:
            values = onnx.numpy_helper.to_array(tensor)
            if not np.isfinite(values).all():
                raise ExportError(f"weight {tensor.name!r} holds NaN or infinity: training diverged; lower its rate")
