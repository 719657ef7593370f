"""One student as a self-contained file, with samples that it was not trained on."""

from __future__ import annotations

import numpy as np
import pytest

from devices.preprocess import Preprocess
from edge_models.samples import Samples
from edge_models.students import Student
from edge_models.tasks import plugin_of
from edge_protocol.task import ImageInput, TaskSpec
from export import BuiltArtifact, build_artifact
from export.graph import inlined
from export.passes.gates import answers


@pytest.fixture(scope="session")
def artifact(spec: TaskSpec, student: Student, inputs: np.ndarray) -> BuiltArtifact:
    """What is deployed of the student, in fp16: no quantisation has rounded its numbers yet."""
    return build_artifact(spec, "small", student, inputs, form="fp16")


@pytest.fixture(scope="session")
def full(artifact: BuiltArtifact) -> bytes:
    """The residual student, template and weights in one file."""
    return inlined(artifact.template, artifact.weights)


@pytest.fixture(scope="session")
def held(spec: TaskSpec, full: bytes) -> tuple[np.ndarray, Samples]:
    """Simulated images, labelled as the FP32 student sees them, so that it is right on all of them."""
    assert isinstance(spec.input, ImageInput)
    raw = plugin_of(spec).simulate(spec, np.random.default_rng(1), 96).raw.astype(np.uint8)
    x = Preprocess(spec.input).batch(raw)
    return x, Samples.of(raw, answers(full, x).argmax(axis=1).astype(np.int64))
