"""Files of a candidate, written and read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from broker_server.candidate_files import load_student, load_tensors, save_tensors
from edge_models.students import build_student
from edge_models.tasks import load_task
from edge_protocol.errors import DistillationError

SPEED = load_task("speed")


def test_a_student_comes_back_bit_for_bit(tmp_path: Path) -> None:
    """Saved and read, every weight is the same."""
    student = build_student(SPEED, "nano", seed=4)
    save_tensors(tmp_path / "new" / "nano.safetensors", student.state_dict())
    read = load_student(tmp_path / "new" / "nano.safetensors", SPEED, "nano").state_dict()
    assert all(torch.equal(value, read[name]) for name, value in student.state_dict().items())


def test_another_tiers_file_is_named(tmp_path: Path) -> None:
    """The weights of nano are none of base."""
    save_tensors(tmp_path / "nano.safetensors", build_student(SPEED, "nano").state_dict())
    with pytest.raises(DistillationError, match=SPEED.students["base"]):
        load_student(tmp_path / "nano.safetensors", SPEED, "base")


def test_a_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    """Half a file is named, with what removing it does."""
    (tmp_path / "half.safetensors").write_bytes(b"\x10\x00\x00")
    with pytest.raises(DistillationError, match="remove it"):
        load_tensors(tmp_path / "half.safetensors")
