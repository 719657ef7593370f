"""Variants of a candidate: one that keeps its limits is an artifact beside the plain one, others leave their reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from broker_server.candidate_variants import leave_variant
from broker_server.releases import variants_in
from devices.preprocess import Preprocess
from devices.runners.ort_runner import OrtRunner
from edge_models.samples import Samples
from edge_models.students import build_student
from edge_models.tasks import load_task, plugin_of
from edge_protocol.task import ImageInput
from export import BuiltArtifact, build_artifact
from export.golden import check_golden

SPEC = load_task("vehicle")


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    """Simulated images as the student takes them."""
    assert isinstance(SPEC.input, ImageInput)
    raw = plugin_of(SPEC).simulate(SPEC, np.random.default_rng(1), 96).raw.astype(np.uint8)
    return Preprocess(SPEC.input).batch(raw)


@pytest.fixture(scope="module")
def artifact(x: np.ndarray) -> BuiltArtifact:
    """A plain artifact."""
    return build_artifact(SPEC, "small", build_student(SPEC, "small", seed=1), x[:4])


@pytest.fixture(scope="module")
def held(x: np.ndarray, artifact: BuiltArtifact) -> tuple[np.ndarray, Samples]:
    """Samples labelled as the plain artifact sees them, so that it is right on all of them."""
    with OrtRunner(artifact.template, artifact.weights) as runner:
        said = runner.infer(x).logits.argmax(axis=1).astype(np.int64)
    return x, Samples.of(np.zeros((len(x), *SPEC.input.raw_shape), np.uint8), said)


def leave(folder: Path, artifact: BuiltArtifact, held: tuple[np.ndarray, Samples], slowdown: float) -> str:
    """Build the INT8 variant for CPUs as if it took so many times the time of the plain one."""
    return leave_variant(
        folder, "int8-cpu", SPEC, artifact, calibration=held[0], held=held, slowdown=lambda *_: slowdown
    )


def test_a_variant_that_keeps_its_limits_is_an_artifact(
    tmp_path: Path, artifact: BuiltArtifact, held: tuple[np.ndarray, Samples]
) -> None:
    """A release takes it up; its golden answers hold, and what a killed worker left is gone."""
    (tmp_path / "int8-cpu").mkdir()
    (tmp_path / "int8-cpu" / "weights.partial").write_bytes(b"half")
    assert leave(tmp_path, artifact, held, 0.5) == ""
    assert variants_in(tmp_path) == ["int8-cpu"]
    place = tmp_path / "int8-cpu"
    assert {path.name for path in place.iterdir()} == {
        "report.json",
        "template.onnx",
        "weights.safetensors",
        "golden.safetensors",
    }
    with OrtRunner((place / "template.onnx").read_bytes(), (place / "weights.safetensors").read_bytes()) as runner:
        check_golden(runner, (place / "golden.safetensors").read_bytes())


def test_a_variant_that_is_slower_is_no_artifact(
    tmp_path: Path, artifact: BuiltArtifact, held: tuple[np.ndarray, Samples]
) -> None:
    """Its report stays, with the reason; files of an earlier try do not."""
    (tmp_path / "int8-cpu").mkdir()
    (tmp_path / "int8-cpu" / "weights.safetensors").write_bytes(b"old")
    assert "1.20 times the CPU time" in leave(tmp_path, artifact, held, 1.2)
    assert [path.name for path in (tmp_path / "int8-cpu").iterdir()] == ["report.json"]
    assert variants_in(tmp_path) == []


def test_a_variant_that_cannot_be_built_costs_the_candidate_nothing(
    tmp_path: Path, artifact: BuiltArtifact, held: tuple[np.ndarray, Samples]
) -> None:
    """No sample to judge it on: said, not raised."""
    nothing = held[0][:0], held[1].take(np.zeros(0, np.int64))
    assert "no sample" in leave_variant(
        tmp_path, "int8-cpu", SPEC, artifact, calibration=held[0], held=nothing, slowdown=lambda *_: 0.5
    )
    assert variants_in(tmp_path) == []
