"""One exported student for the whole folder: exporting takes seconds."""

from __future__ import annotations

import numpy as np
import pytest

from edge_models.students import Student, build_student
from edge_models.tasks import load_task
from edge_protocol.task import TaskSpec
from export import BuiltArtifact, build_artifact

SHAPE = (3, 32, 32)


@pytest.fixture(scope="session")
def spec() -> TaskSpec:
    """The vehicle task."""
    return load_task("vehicle")


@pytest.fixture(scope="session")
def inputs() -> np.ndarray:
    """Three samples as a student takes them."""
    return np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32)


@pytest.fixture(scope="session")
def student(spec: TaskSpec) -> Student:
    """A residual student: its batch norms sit in bodies and in shortcuts."""
    return build_student(spec, "small", seed=1)


@pytest.fixture(scope="session")
def artifact(spec: TaskSpec, student: Student, inputs: np.ndarray) -> BuiltArtifact:
    """What is deployed of it."""
    return build_artifact(spec, "small", student, inputs)
