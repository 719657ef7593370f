"""What no pass can work on is refused with one clear error; passes follow each other and say what they did."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper

from edge_protocol.errors import ExportError
from export import BuiltArtifact
from export.passes.base import apply, checked, report
from export.passes.half import to_half
from export.passes.simplify import simplify


def changed(full: bytes, change: Callable[[ModelProto], object]) -> bytes:
    """The same file with something done to it."""
    model = onnx.load_from_string(full)
    change(model)
    return bytes(model.SerializeToString())


def unknown(model: ModelProto) -> None:
    """Make an operator one that nobody knows."""
    model.graph.node[3].op_type = "Frobnicate"


def foreign(model: ModelProto) -> None:
    """Make an operator one of a single runtime."""
    model.graph.node[3].domain = "com.microsoft"


def fixed(model: ModelProto) -> None:
    """Fix the batch."""
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def diverged(model: ModelProto) -> None:
    """Put NaN into a weight."""
    tensor = next(one for one in model.graph.initializer if one.name == "head.bias")
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(6, np.nan, np.float32), "head.bias"))


def dangling(model: ModelProto) -> None:
    """Let a layer read what no layer writes."""
    model.graph.node[3].input[0] = "nowhere"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (unknown, r"layer '\w+': opset 18 has no operator 'Frobnicate'; replace it"),
        (foreign, r"layer '\w+': operator com\.microsoft\.\w+ is not of ONNX"),
        (fixed, "'input' has a fixed batch of 1: export it with a dynamic batch"),
        (diverged, r"weight 'head\.bias' holds NaN"),
        (dangling, "not a valid ONNX file: .*nowhere"),
    ],
)
def test_each_bad_file_has_its_own_error(full: bytes, change: Callable[[ModelProto], None], message: str) -> None:
    """Unknown and foreign operators with their layer, a fixed batch, NaN, a broken graph: each says what to do."""
    with pytest.raises(ExportError, match=message):
        checked(changed(full, change))


@pytest.mark.parametrize("size", [0, 40, 20_000])
def test_a_truncated_file_is_refused(full: bytes, size: int) -> None:
    """Empty and cut off."""
    with pytest.raises(ExportError, match="build or fetch it again"):
        checked(full[:size])


def test_a_template_needs_its_weights_first(artifact: BuiltArtifact) -> None:
    """A pass works on numbers, which a template does not have."""
    with pytest.raises(ExportError, match="put template and payload together first"):
        checked(artifact.template)


def test_passes_follow_each_other(full: bytes) -> None:
    """Each gets what the one before made, and each has its report."""
    made, reports = apply([simplify, to_half], full)
    assert [one.name for one in reports] == ["simplify", "fp16"]
    assert reports[0].bytes[1] == reports[1].bytes[0]
    assert reports[1].bytes[1] == len(made) < 0.6 * len(full)
    assert apply([], full) == (full, [])


def test_a_report_counts_operators(full: bytes) -> None:
    """One more of one, one fewer of another, what did not change is left out."""

    def swap(model: ModelProto) -> None:
        last = model.graph.node.pop()
        model.graph.node.append(helper.make_node("Add", [last.input[0], last.input[0]], ["logits"]))

    found = report("swap", full, changed(full, swap), "a note")
    assert found.operators == {"Add": 1, "Gemm": -1}
    assert found.notes == ("a note",)
