"""One call makes all files of a tier."""

from __future__ import annotations

import numpy as np
import pytest

import export
from edge_models.students import Student
from edge_protocol.errors import ExportError
from edge_protocol.task import TaskSpec
from export import BuiltArtifact, build_artifact


def test_a_known_template_is_used_again(
    spec: TaskSpec, student: Student, inputs: np.ndarray, artifact: BuiltArtifact
) -> None:
    """With the template of an earlier build the same files come out."""
    again = build_artifact(spec, "small", student, inputs, template=artifact.template)
    assert again == artifact
    assert again.parameters == sum(p.numel() for p in student.parameters())


@pytest.mark.parametrize("shape", [(3, 12, 4), (0, 3, 32, 32)])
def test_sample_inputs_must_be_the_tasks(spec: TaskSpec, student: Student, shape: tuple[int, ...]) -> None:
    """Inputs of another shape, or none, are refused before anything is exported."""
    with pytest.raises(ExportError, match="sample inputs are"):
        build_artifact(spec, "small", student, np.zeros(shape))


def test_the_package_has_no_other_names() -> None:
    """A misspelled name is an attribute error, not a silent import."""
    with pytest.raises(AttributeError, match="build_artefact"):
        export.build_artefact  # noqa: B018 - the access is the test
