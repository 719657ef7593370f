"""Weights payloads: the template's names, scales that stay, and nothing that is not a finite number."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from devices.runners.ort_runner import OrtRunner
from devices.runners.payload import read_payload
from edge_models.students import Student, build_student
from edge_protocol.errors import ExportError
from edge_protocol.manifest import SCALE
from edge_protocol.task import TaskSpec
from export import BuiltArtifact
from export.fold import folded
from export.graph import inlined, weight_shapes
from export.payload import served, weights_payload
from export.template import build_template

CONV = "trunk.8.project.weight"


def test_a_payload_has_the_templates_names(artifact: BuiltArtifact) -> None:
    """Shapes are the template's; weights of the trunk are one byte a number, biases and the head two."""
    tensors = read_payload(artifact.weights)
    assert {name: array.shape for name, array in tensors.items()} == weight_shapes(artifact.template)
    raw = load(artifact.weights)
    assert {raw[name].dtype for name in ("head.weight", "head.bias")} == {np.dtype(np.float16)}
    matrices = [name for name, array in tensors.items() if array.ndim > 1 and not name.startswith("head.")]
    assert {raw[name].dtype for name in matrices} == {np.dtype(np.int8)}
    assert len(artifact.weights) < 1.1 * artifact.parameters + 8192


def test_fp16_can_be_had_instead(student: Student, artifact: BuiltArtifact) -> None:
    """Two bytes a number, and no scale."""
    tensors = load(weights_payload(student, artifact.template, form="fp16"))
    assert {name: array.shape for name, array in tensors.items()} == weight_shapes(artifact.template)
    assert {array.dtype for array in tensors.values()} == {np.dtype(np.float16)}


def grown(student: Student, factor: float, *, part: str = CONV) -> Student:
    """The same student with one channel of a convolution multiplied."""
    other = folded(student)
    with torch.no_grad():
        other.get_parameter(part)[0] *= factor
    return other


@given(st.floats(1 / 3.9, 3.9))
@settings(max_examples=20)
def test_scales_stay_those_of_the_base_while_they_fit(student: Student, artifact: BuiltArtifact, factor: float) -> None:
    """So that the difference of two releases is one of whole steps; every weight is within half a step."""
    other = grown(student, factor)
    made = weights_payload(other, artifact.template, base=artifact.weights)
    before, after = load(artifact.weights), load(made)
    assert all((before[n] == after[n]).all() for n in before if n.endswith(SCALE))
    exact, given_back = other.get_parameter(CONV).detach().numpy(), read_payload(made)[CONV]
    assert (np.abs(given_back - exact) <= 0.5001 * after[CONV + SCALE]).all()


@pytest.mark.parametrize("factor", [4.1, 1000.0, 1 / 4.1, 0.0])
def test_a_channel_that_outgrew_its_scale_gets_another(
    student: Student, artifact: BuiltArtifact, factor: float
) -> None:
    """Or one that shrank as far; only that channel, and nothing saturates."""
    other = grown(student, factor)
    made = weights_payload(other, artifact.template, base=artifact.weights)
    before, after = load(artifact.weights)[CONV + SCALE], load(made)[CONV + SCALE]
    assert before[0] != after[0]
    assert (before[1:] == after[1:]).all()
    exact = other.get_parameter(CONV).detach().numpy()
    assert (np.abs(read_payload(made)[CONV] - exact) <= 0.5001 * after).all()


@pytest.mark.parametrize("base", [b"", b"no payload", bytes(100)], ids=["none", "garbage", "zeros"])
def test_a_base_that_is_none_costs_nothing_but_the_delta(
    student: Student, artifact: BuiltArtifact, base: bytes
) -> None:
    """The payload is then as for a first release."""
    assert weights_payload(student, artifact.template, base=base) == artifact.weights


def test_a_base_of_another_student_or_in_fp16_is_as_good_as_none(spec: TaskSpec, artifact: BuiltArtifact) -> None:
    """Scales of another shape are not taken."""
    other = build_student(spec, "base", seed=3)
    template = build_template(other, spec.input.shape)
    fresh = weights_payload(other, template)
    assert weights_payload(other, template, base=artifact.weights) == fresh
    assert weights_payload(other, template, base=weights_payload(other, template, form="fp16")) == fresh


def test_what_is_served_is_what_a_device_reads(student: Student, artifact: BuiltArtifact) -> None:
    """Bit for bit, without a payload's numbers being looked at."""
    tensors = read_payload(artifact.weights)
    for name, tensor in served(student, artifact.weights).state_dict().items():
        assert (tensor.numpy() == tensors[name]).all(), name


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
    whole = inlined(artifact.template, artifact.weights)
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
        inlined(artifact.template, save(tensors))
