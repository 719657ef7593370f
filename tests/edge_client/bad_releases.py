"""Releases that no device is to run, and what it says of each; for the tests of devices with and without TensorRT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import onnx

from tests.fakes.small_centre import Files, artifact_files, spoilt


def _changed(files: Files, change: Callable[[onnx.ModelProto], None]) -> Files:
    model = onnx.load_from_string(files.template)
    change(model)
    return replace(files, template=model.SerializeToString(deterministic=True))


def _fixed_batch(model: onnx.ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1


def _unknown_operator(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Frobnicate"


def _newer_operators(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 99


BAD: dict[str, tuple[Callable[[Files], Files], str]] = {
    "NaN weights": (partial(spoilt, weights=float("nan")), "'.*' .* holds something that is not a finite number"),
    "NaN answers": (partial(spoilt, golden=float("nan")), "off the golden logits"),
    "another template's payload": (
        lambda files: replace(files, weights=artifact_files("speed").weights),
        "check that both come from the same",
    ),
    "corrupted ONNX": (
        lambda files: replace(files, template=files.template[:3000]),
        "make no student.*fetch them again",
    ),
    "fixed batch": (partial(_changed, change=_fixed_batch), "fixed batch.*export it with a dynamic one"),
    "unknown operator": (
        partial(_changed, change=_unknown_operator),
        r'Node, \("\w+", Frobnicate.*replace this operator in the student',
    ),
    "newer operators": (partial(_changed, change=_newer_operators), "Opset 99 .*or use a newer ONNX Runtime$"),
}
"""By what is wrong: how to make one of a good release, and what is said."""
