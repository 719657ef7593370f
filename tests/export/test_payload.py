"""Weights payloads: the template's names in fp16, and nothing that is not a finite number."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.numpy import load

from devices.runners.ort_runner import OrtRunner
from edge_models.students import Student, build_student
from edge_protocol.errors import ExportError
from edge_protocol.task import TaskSpec
from export import BuiltArtifact
from export.graph import inlined, weight_shapes
from export.payload import weights_payload


def test_a_payload_has_the_templates_names_in_fp16(artifact: BuiltArtifact) -> None:
    """Names and shapes are the template's, two bytes a number."""
    tensors = load(artifact.weights)
    assert {name: array.shape for name, array in tensors.items()} == weight_shapes(artifact.template)
    assert {array.dtype for array in tensors.values()} == {np.dtype(np.float16)}
    assert len(artifact.weights) < 2.1 * artifact.parameters + 4096


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_a_diverged_student_has_no_payload(student: Student, artifact: BuiltArtifact, value: float) -> None:
    """NaN, infinity and what fp16 cannot hold are named before anything is sent."""
    broken = deepcopy(student)
    with torch.no_grad():
        broken.head.bias[0] = value
    with pytest.raises(ExportError, match=r"head\.bias"):
        weights_payload(broken, artifact.template)


def test_another_students_template_is_refused(spec: TaskSpec, artifact: BuiltArtifact) -> None:
    """Student and template must belong together."""
    with pytest.raises(ExportError, match="differ in"):
        weights_payload(build_student(spec, "nano"), artifact.template)


def test_one_file_of_both_answers_like_the_runner(artifact: BuiltArtifact, inputs: np.ndarray) -> None:
    """Graph and weights in one file, run by a bare session, give what the runner gives."""
    whole = inlined(artifact.template, load(artifact.weights))
    session = onnxruntime.InferenceSession(whole, providers=["CPUExecutionProvider"])
    features, logits = session.run(["features", "logits"], {"input": inputs})
    with OrtRunner(artifact.template, artifact.weights) as runner:
        answer = runner.infer(inputs)
    assert np.allclose(features, answer.features, atol=1e-6)
    assert np.allclose(logits, answer.logits, atol=1e-6)


def test_one_file_needs_every_weight(artifact: BuiltArtifact) -> None:
    """A weight that is missing is named."""
    tensors = load(artifact.weights)
    del tensors["head.bias"]
    with pytest.raises(ExportError, match=r"head\.bias"):
        inlined(artifact.template, tensors)
