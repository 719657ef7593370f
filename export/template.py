"""The template: an ONNX graph that names its weights and holds none of them. Owns the recipe, no file.

The weights are external tensors, which a runtime takes from the payload by name. While the graph is traced they are
random and distinct, because the exporter merges equal tensors; afterwards everything that depends on the machine, a
source path or the weights is stripped. The same student always gives the same bytes, so a release that only brings
new weights re-uses the template that devices already have.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import onnx
import torch
from onnx import ModelProto

from edge_models.students import Student
from edge_protocol.errors import ExportError
from export.fold import folded
from export.graph import INPUT, OUTPUTS, place_outside

OPSET = 18
"""Old enough for TensorRT 8.6, and the oldest that the exporter writes without a conversion that may fail."""
MAX_BATCH = 4096
_NODE = re.compile(r"translating node %(\w+)")


def build_template(student: Student, shape: tuple[int, ...]) -> bytes:
    """Export the graph of a student, whatever its weights.

    Args:
        student: in any mode; not changed.
        shape: of one input sample.

    Raises:
        ExportError: an operator cannot be exported, the batch got frozen, or weights lost their names.
    """
    plain = _with_distinct_weights(folded(student))
    model = _trace(plain, torch.zeros(2, *shape))
    _check_graph(model)
    expected = {name: tuple(tensor.shape) for name, tensor in plain.state_dict().items()}
    _check_names(model, expected)
    _strip(model)
    _move_weights_out(model, expected)
    return bytes(model.SerializeToString(deterministic=True))


def _with_distinct_weights(plain: Student) -> Student:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in plain.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return plain


def _trace(plain: Student, sample: torch.Tensor) -> ModelProto:
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    try:
        with _quiet():
            program = torch.onnx.export(
                plain,
                (sample,),
                dynamo=True,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes=({0: batch},),
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        cause = error.__cause__ or error
        raise ExportError(
            f"student cannot be exported{_where(plain, sample, str(cause))}; replace the operator, or the code that "
            f"uses the batch size as a number: {str(cause).strip()[:800]}"
        ) from error
    assert program is not None
    return program.model_proto


def _where(plain: Student, sample: torch.Tensor, said: str) -> str:
    """Operator and layer of the node that the exporter could not translate, where it names one."""
    named = _NODE.search(said)
    if not named:
        return ""
    with _quiet():
        graph = torch.export.export(plain, (sample,)).run_decompositions().graph
    for node in graph.nodes:
        if node.name == named[1]:
            layers = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
            return f": layer {layers[-1] if layers else '?'!r} uses {node.target}"
    return ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks about torchvision and its own internals to itself."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _check_graph(model: ModelProto) -> None:
    onnx.checker.check_model(model)
    for value in model.graph.input:
        if not value.type.tensor_type.shape.dim[0].dim_param:
            raise ExportError(
                f"graph input {value.name!r} has a fixed batch: the student's code uses the batch size as a number"
            )
    inputs, outputs = [v.name for v in model.graph.input], [v.name for v in model.graph.output]
    if inputs != [INPUT] or outputs != list(OUTPUTS):
        raise ExportError(f"graph goes from {inputs} to {outputs}, must go from {[INPUT]} to {list(OUTPUTS)}")
    written = {entry.domain: entry.version for entry in model.opset_import}
    if written.get("") != OPSET:
        raise ExportError(
            f"exporter wrote opset {written}, not {OPSET}: pin torch and onnxscript as in constraints.txt"
        )


def _check_names(model: ModelProto, expected: dict[str, tuple[int, ...]]) -> None:
    """Every weight keeps its name and shape, and no other initializer is big enough to be a disguised weight."""
    found = {i.name: tuple(i.dims) for i in model.graph.initializer}
    lost = [name for name, shape in expected.items() if found.get(name) != shape]
    strange = [n for n, shape in found.items() if n not in expected and prod(shape) > max(len(shape), 1) * 8]
    if lost or strange:
        raise ExportError(
            f"weights lost their names in the export (lost: {lost[:4]}, new: {strange[:4]}): write linear maps on "
            "three axes as convolutions of kernel 1, and recurrent layers step by step"
        )


def _strip(model: ModelProto) -> None:
    """Remove what depends on machine or exporter version; shapes stay, without them a session loads at half speed."""
    model.producer_name, model.producer_version = "roadcast", ""
    _forget(model, "doc_string", "metadata_props")
    _forget(model.graph, "doc_string", "metadata_props")
    model.graph.name = "student"
    graph = model.graph
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        _forget(part, "doc_string", "metadata_props")


def _forget(message: Any, *fields: str) -> None:  # noqa: ANN401 - protobuf's messages have no common typed base
    for name in fields:
        message.ClearField(name)


def _move_weights_out(model: ModelProto, expected: dict[str, tuple[int, ...]]) -> None:
    offset = 0
    for tensor in model.graph.initializer:
        if tensor.name not in expected:
            continue
        size = 4 * prod(tensor.dims)
        place_outside(tensor, offset, size)
        offset += size
