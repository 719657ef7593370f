"""What no pass can work on is refused with one clear error; passes follow each other and say what they did."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper

from edge_protocol.errors import ExportError
from export import BuiltArtifact
from export.graph import contents
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


def short(model: ModelProto) -> None:
    """Leave most bytes of a weight out."""
    weight(model).raw_data = b"1234"


def huge(model: ModelProto) -> None:
    """Let a weight be of 4 TiB."""
    weight(model).dims[:] = [2**40]


def untyped(model: ModelProto) -> None:
    """Let a weight be of a type that nobody knows."""
    weight(model).data_type = 999


def weight(model: ModelProto) -> TensorProto:
    """One of the file's weights."""
    return next(one for one in model.graph.initializer if one.name == "head.bias")


def no_number(model: ModelProto) -> None:
    """Add a NaN in a layer of its own."""
    constant(model, value=onnx.numpy_helper.from_array(np.array([1, np.nan], np.float16)))


def no_float(model: ModelProto) -> None:
    """The same in a layer's plain attribute."""
    constant(model, value_float=float("nan"))


def elsewhere(model: ModelProto) -> None:
    """Let a layer's constant be in another file."""
    tensor = TensorProto(name="k", dims=[1], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/hostname")
    constant(model, value=tensor)


def constant(model: ModelProto, **value: object) -> None:
    """Add a constant that is used."""
    last = model.graph.node.pop()
    model.graph.node.append(helper.make_node("Constant", [], ["k"], **value))
    model.graph.node.append(last)


def branched(model: ModelProto) -> None:
    """Put an operator that nobody knows into a branch, beside a NaN."""
    wrong = onnx.numpy_helper.from_array(np.array([np.nan], np.float32), "inner")
    branch(model, helper.make_node("Frobnicate", ["inner"], ["z"]), wrong)


def branched_weight(model: ModelProto) -> None:
    """Put a NaN into a branch."""
    wrong = onnx.numpy_helper.from_array(np.array([np.nan], np.float32), "inner")
    branch(model, helper.make_node("Relu", ["inner"], ["z"]), wrong)


def branch(model: ModelProto, node: NodeProto, tensor: TensorProto) -> None:
    """Add a condition whose two branches are one layer with one weight."""
    value = helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])
    inner = helper.make_graph([node], "inner", [], [value], [tensor])
    model.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    model.graph.node.append(helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (unknown, r"layer '\w+': opset 18 has no operator 'Frobnicate'; replace it"),
        (foreign, r"layer '\w+': operator com\.microsoft\.\w+ is not of ONNX"),
        (fixed, "'input' has a fixed batch of 1: export it with a dynamic batch"),
        (diverged, r"weight 'head\.bias' holds NaN"),
        (dangling, "not a valid ONNX file: .*nowhere"),
        (short, r"weight 'head\.bias' cannot be read: .*export or fetch it again"),
        (huge, r"weight 'head\.bias' cannot be read: .*export or fetch it again"),
        (untyped, r"weight 'head\.bias' holds numbers of type 999, .*fetch it again"),
        (no_number, "layer 'k' holds NaN: .*export it again"),
        (no_float, "layer 'k' holds NaN: .*export it again"),
        (elsewhere, "the constant of layer 'k' is not in the file"),
        (branched, "layer 'z': opset 18 has no operator 'Frobnicate'; replace it"),
        (branched_weight, "weight 'inner' holds NaN"),
    ],
)
def test_each_bad_file_has_its_own_error(full: bytes, change: Callable[[ModelProto], None], message: str) -> None:
    """Operators that are unknown, foreign or in a branch, a fixed batch, NaN anywhere, numbers that are not there.

    Each says where it is and what to do.
    """
    with pytest.raises(ExportError, match=message):
        checked(changed(full, change))


def test_a_mask_of_infinities_is_no_error(full: bytes) -> None:
    """Attention adds minus infinity, and limits are infinite where there are none."""

    def masked(model: ModelProto) -> None:
        constant(model, value=onnx.numpy_helper.from_array(np.array([-np.inf], np.float32)))

    assert checked(changed(full, masked)).graph.node[-2].op_type == "Constant"


def test_what_is_in_branches_is_counted(full: bytes) -> None:
    """Layers and weights of both branches are among a file's contents."""
    found = contents(changed(full, branched))
    assert found.operators["Frobnicate"] == 2
    assert found.numbers["float"] == contents(full).numbers["float"] + 2


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
