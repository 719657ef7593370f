"""Variants on disk: one that passes is an artifact, one that does not leaves its report, old ones go."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from devices.runners.ort_runner import OrtRunner
from edge_models.samples import Samples
from edge_protocol.errors import NotReadyError, StoreError
from edge_protocol.task import TaskSpec
from export import BuiltArtifact
from export.folder import GOLDEN, STATE, TEMPLATE, WEIGHTS, read_card, write_artifact
from export.golden import check_golden
from export.passes.folder import REPORT, forget_variants, self_contained, write_variant
from export.passes.gates import Limits
from export.passes.variants import Variant, VariantReport

Held = tuple[np.ndarray, Samples]


@pytest.fixture
def folder(tmp_path: Path, artifact: BuiltArtifact, spec: TaskSpec) -> Path:
    """The FP32 student's folder, with a state dict."""
    write_artifact(tmp_path / "small", artifact, spec, "small")
    (tmp_path / "small" / STATE).write_bytes(b"state")
    return tmp_path / "small"


def write(folder: Path, variant: Variant, held: Held, limits: Limits) -> VariantReport:
    """Build a variant, whatever its speed."""
    return write_variant(folder, variant, calibration=held[0][:16], held=held, limits=limits, slowdown=None)


@pytest.mark.parametrize("variant", ["int8-cpu", "int8-trt"])
def test_int8_is_an_artifact_of_its_own(variant: Variant, folder: Path, held: Held, full: bytes) -> None:
    """Card, golden answers, the FP32 state that training goes on from, and the report; the FP32 files stay."""
    report = write(folder, variant, held, Limits(loss=1, sqnr_db=0, agreement=0))
    assert read_card(folder / variant).precision == variant
    assert (folder / variant / GOLDEN).is_file()
    assert (folder / variant / STATE).read_bytes() == b"state"
    assert msgspec.json.decode((folder / variant / REPORT).read_bytes(), type=VariantReport) == report
    assert read_card(folder).precision == "fp32"
    assert self_contained(folder) == full


def test_int8_for_tensorrt_is_an_artifact_and_one_file(folder: Path, held: Held) -> None:
    """A release carries the artifact, whose answers ONNX Runtime checks here; tools of TensorRT take the file."""
    write(folder, "int8-trt", held, Limits(loss=1, sqnr_db=0, agreement=0))
    place = folder / "int8-trt"
    assert read_card(place).precision == "int8-trt"
    assert (place / "int8-trt.onnx").is_file()
    with OrtRunner(*((place / name).read_bytes() for name in (TEMPLATE, WEIGHTS))) as runner:
        check_golden(runner, (place / GOLDEN).read_bytes())


def test_what_does_not_pass_leaves_its_report_alone(folder: Path, held: Held) -> None:
    """No file of a variant that missed a limit is ever there."""
    assert write(folder, "fp16", held, Limits(loss=-1)).problems
    assert [path.name for path in (folder / "fp16").iterdir()] == [REPORT]


def test_variants_of_an_earlier_build_are_taken_away(folder: Path, held: Held) -> None:
    """They are of other weights; the student itself stays, and a second time there is nothing to do."""
    write(folder, "fp16", held, Limits(sqnr_db=0))
    assert (folder / "fp16" / "fp16.onnx").is_file()
    for _ in range(2):
        forget_variants(folder)
        assert not (folder / "fp16").exists()
    assert (folder / TEMPLATE).is_file()


def test_a_place_that_cannot_be_written_is_named(folder: Path, held: Held) -> None:
    """A file stands where the variant's folder should be; no folder, no variant."""
    (folder / "fp16").touch()
    with pytest.raises(StoreError, match=r"fp16: cannot be written"):
        write(folder, "fp16", held, Limits(sqnr_db=0))
    with pytest.raises(NotReadyError):
        write(folder / "none", "fp16", held, Limits())
