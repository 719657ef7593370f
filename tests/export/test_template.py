"""Templates: names, dynamic batch, the same bytes each time, and clear errors for what cannot be exported."""

from __future__ import annotations

import onnx
import pytest
import torch
from torch import Tensor, nn

from edge_models.students import Student, build_student
from edge_models.students.base import Features
from edge_models.tasks import load_task
from edge_protocol.errors import ExportError
from edge_protocol.task import TIERS, TaskSpec, Tier
from export import BuiltArtifact
from export.fold import folded
from export.graph import LOCATION, read_template, weight_shapes
from export.template import OPSET, build_template

EVERY = [(name, tier) for name in ("vehicle", "speed") for tier in TIERS]


class Trunk(nn.Module):
    """A trunk with one odd step before its features."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.features = Features(width)

    def odd(self, x: Tensor) -> Tensor:
        """Return x; overridden."""
        return x

    def forward(self, x: Tensor) -> Tensor:
        """(N, 4) → (N, 64)."""
        features: Tensor = self.features(self.odd(x))
        return features


class Unsupported(Trunk):
    """Uses an operator that ONNX does not have."""

    def odd(self, x: Tensor) -> Tensor:
        """Complex eigenvalues."""
        return x + torch.linalg.eigvals(x[:, :2, None] * x[:, None, :2]).real.sum(dim=1, keepdim=True)


class Frozen(Trunk):
    """Uses the batch size as a number."""

    def odd(self, x: Tensor) -> Tensor:
        """Reshape by a fixed batch."""
        return x.reshape(2, -1)


class Renamed(Trunk):
    """A linear map on three axes, whose weight the exporter transposes and renames."""

    def __init__(self) -> None:
        super().__init__(16)
        self.wide = nn.Linear(1, 16, bias=False)

    def odd(self, x: Tensor) -> Tensor:
        """Map each number to sixteen."""
        return torch.as_tensor(self.wide(x[:, :, None])).mean(dim=1)


@pytest.mark.parametrize(("name", "tier"), EVERY)
def test_every_template_names_every_weight(name: str, tier: Tier) -> None:
    """The weights a template asks for are the folded student's state dict, by name and shape; it holds none itself."""
    spec = load_task(name)
    student = build_student(spec, tier)
    template = build_template(student, spec.input.shape)
    expected = {key: tuple(tensor.shape) for key, tensor in folded(student).state_dict().items()}
    assert weight_shapes(template) == expected
    assert len(template) < 32_000


def test_the_same_student_gives_the_same_bytes(artifact: BuiltArtifact, spec: TaskSpec) -> None:
    """Neither the weights nor a second build changes a byte, so a release need not send the template again."""
    assert build_template(build_student(spec, "small", seed=9), spec.input.shape) == artifact.template


def test_a_template_says_nothing_about_where_it_was_made(artifact: BuiltArtifact) -> None:
    """No source path, stack trace or producer version is left in the bytes."""
    for trace in (b"/", b".py", torch.__version__.encode(), b"stack_trace", b"class_hierarchy"):
        assert trace not in artifact.template.replace(LOCATION.encode(), b"")


def test_inputs_outputs_batch_and_opset_are_as_promised(artifact: BuiltArtifact) -> None:
    """One input with a free batch, two named outputs, the opset asked for."""
    model = read_template(artifact.template)
    assert [value.name for value in model.graph.input] == ["input"]
    assert [value.name for value in model.graph.output] == ["features", "logits"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert model.opset_import[0].version == OPSET


@pytest.mark.parametrize(
    ("trunk", "message"),
    [
        (Unsupported(), r"cannot be exported: layer 'trunk' uses aten\.linalg_eig.*; replace the operator"),
        (Frozen(), "batch size as a number"),
        (Renamed(), "lost their names.*wide"),
    ],
)
def test_what_cannot_be_exported_is_an_error(trunk: Trunk, message: str) -> None:
    """An unsupported operator, a frozen batch and a renamed weight are told apart, each with what to do."""
    with pytest.raises(ExportError, match=message):
        build_template(Student(trunk, 3), (4,))


def test_a_file_that_is_no_template_is_refused(artifact: BuiltArtifact) -> None:
    """Truncated bytes and an ONNX file with its own weights are told apart."""
    with pytest.raises(ExportError, match="not an ONNX file"):
        weight_shapes(artifact.template[:-50])
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    own = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], []))
    with pytest.raises(ExportError, match="no external weights"):
        weight_shapes(own.SerializeToString())
