"""Manifests of rounds: taken, written, read and compared."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from broker_server.distil_job import DistilJob, DistilResult, DistilSettings
from broker_server.round_manifest import (
    RoundManifest,
    changed,
    decoded,
    describe,
    digest,
    encoded,
    environment,
    input_hashes,
    outcomes,
)
from edge_protocol.errors import DistillationError

RESULT = DistilResult(
    headline="mae",
    higher_is_better=False,
    metrics={"nano": {"candidate": {"mae": 0.1}}},
    teacher={"reports": 1.0, "share/cam-1": 0.25},
    devices={"cam-2": "votes hold NaN"},
    parameters={"nano": 3},
)


def job_of(folder: Path) -> DistilJob:
    """A job on the packs of a folder."""
    packs = {"anchors": str(folder / "a.npz"), "proxies": str(folder / "p.npz"), "validation": str(folder / "v.npz")}
    return DistilJob(task="speed", round=3, release=2, settings=DistilSettings(), salt="5a17", **packs)


def manifest(folder: Path) -> RoundManifest:
    """The manifest of a job of small files."""
    for name in ("a.npz", "p.npz", "v.npz", "job.json", "candidate/nano/weights.safetensors"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    job = job_of(folder)
    return describe(folder, job, RESULT, inputs=input_hashes(folder, job), heard={"cam-1": 2}, device="cpu")


def test_a_manifest_is_the_same_bytes_and_comes_back(tmp_path: Path) -> None:
    """Written twice and read: the same."""
    made = manifest(tmp_path)
    assert encoded(made) == encoded(manifest(tmp_path))
    assert decoded(encoded(made), "here") == made
    assert made.outputs == {
        "candidate/nano/weights.safetensors": digest(tmp_path / "candidate/nano/weights.safetensors")
    }


def test_what_is_no_manifest_is_refused() -> None:
    """The error says where it was read."""
    with pytest.raises(DistillationError, match="blob 7: not a manifest"):
        decoded(b"{}", "blob 7")


def test_a_file_of_the_job_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A pack that cannot be read is an error that names it."""
    manifest(tmp_path)
    (tmp_path / "p.npz").unlink()
    with pytest.raises(DistillationError, match=r"p\.npz"):
        input_hashes(tmp_path, job_of(tmp_path))


def test_outcomes_name_files_scores_and_reports(tmp_path: Path) -> None:
    """A heard device has its share, a refused one its reason; one digit of a score is another outcome."""
    made = manifest(tmp_path)
    found = outcomes(made)
    assert (found["report/cam-1"], found["report/cam-2"]) == ("0.25", "votes hold NaN")
    other = msgspec.structs.replace(RESULT, metrics={"nano": {"candidate": {"mae": 0.1 + 1e-16}}})
    assert other.metrics != RESULT.metrics
    assert changed(found, outcomes(msgspec.structs.replace(made, result=other))).keys() == {"nano/candidate scores"}


def test_the_environment_names_parts_and_machine() -> None:
    """Every part has a version, and asking twice gives the same."""
    assert environment() == environment()
    assert all(environment()[part] for part in ("roadcast", "torch", "numpy", "python", "machine", "simd"))


def test_changes_are_told_from_both_sides() -> None:
    """What is new, gone or other is told; what is asked for alone, alone."""
    assert changed({"a": "1", "b": "2"}, {"b": "3", "c": "4"}) == {"a": "1 → none", "b": "2 → 3", "c": "none → 4"}
    assert changed({"a": "1", "b": "2"}, {"b": "3"}, ["b"]) == {"b": "2 → 3"}
