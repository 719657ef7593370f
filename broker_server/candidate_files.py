"""The tensors and artifacts that the worker reads and leaves; owns their file form, not what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from broker_server.strategies.base import F4
from edge_models.students import Student, build_student
from edge_protocol.errors import DistillationError, RoadcastError
from edge_protocol.task import TaskSpec, Tier
from export import BuiltArtifact, build_artifact
from export.payload import Form


def export_candidate(
    cache: Path, student: Student, spec: TaskSpec, tier: Tier, x: F4, *, form: Form = "int8", base: bytes = b""
) -> BuiltArtifact:
    """Build a candidate's artifact; a template is the same for every release, so it is kept in `cache`."""
    tracer = f"torch{torch.__version__}-onnx{version('onnx')}-script{version('onnxscript')}"
    kept = cache / f"{spec.label_space}-{spec.students[tier]}-{tracer}.onnx"
    if kept.exists():
        try:
            return build_artifact(spec, tier, student, x, template=kept.read_bytes(), form=form, base=base)
        except RoadcastError:
            kept.unlink()  # traced by another version of the student: trace again
    artifact = build_artifact(spec, tier, student, x, form=form, base=base)
    cache.mkdir(parents=True, exist_ok=True)
    write_file(kept, artifact.template)
    return artifact


def leave_candidate(folder: Path, student: Student, artifact: BuiltArtifact) -> None:
    """Write what a release is made of (see `distil_job`)."""
    save_tensors(folder / "state.safetensors", student.state_dict())
    write_file(folder / "template.onnx", artifact.template)
    write_file(folder / "weights.safetensors", artifact.weights)
    write_file(folder / "golden.safetensors", artifact.golden)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors by name.

    Raises:
        DistillationError: the file is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DistillationError(
            f"{path}: cannot be read: {error}; remove it, and training begins with a fresh optimiser"
        ) from error


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors by name; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, save({name: value.contiguous() for name, value in tensors.items()}))


def released_payload(current: str | None, tier: Tier) -> bytes:
    """A tier's weights payload in the folder of the current release; b"" when there is none."""
    path = Path(current or "") / f"{tier}.weights.safetensors"
    return path.read_bytes() if current and path.is_file() else b""


def load_student(path: Path, spec: TaskSpec, tier: Tier) -> Student:
    """Read a tier's student, in evaluation mode.

    Raises:
        DistillationError: the file is missing, damaged, or of another student.
    """
    student = build_student(spec, tier)
    try:
        student.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise DistillationError(f"{path}: not the weights of {spec.students[tier]!r}: {error}") from error
    return student.eval()


def write_file(path: Path, data: bytes) -> None:
    """Write a file so that a killed worker leaves the old one or the new one."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(data)
    partial.replace(path)
