"""The parity gate lets the right files through and names what is off."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch

from edge_models.students import Student
from edge_protocol.errors import ExitCode, ParityError
from export import BuiltArtifact
from export.parity import BATCHES, check_parity


def test_the_right_files_agree_at_every_batch(artifact: BuiltArtifact) -> None:
    """Differences are rounding, at one, two, seven and sixty-four samples."""
    assert artifact.parity.batches == BATCHES == (1, 2, 7, 64)
    assert artifact.parity.features < 1e-5
    assert artifact.parity.logits < 1e-5


@pytest.mark.parametrize(("part", "output"), [("head.bias", "logits"), ("trunk.8.project.bias", "features")])
def test_a_small_difference_is_caught(
    student: Student, artifact: BuiltArtifact, inputs: np.ndarray, part: str, output: str
) -> None:
    """One weight off by a hundredth fails the gate, which says where, how much and what to do."""
    other = deepcopy(student)
    with torch.no_grad():
        other.get_parameter(part)[0] += 0.02
    with pytest.raises(ParityError, match=rf"{output} at batch 1 differ by .*pin torch") as caught:
        check_parity(other, artifact.template, artifact.weights, inputs)
    assert caught.value.exit_code == ExitCode.CHECK_FAILED


def test_answers_that_are_not_numbers_are_caught(student: Student, artifact: BuiltArtifact, inputs: np.ndarray) -> None:
    """NaN never passes for equal."""
    other = deepcopy(student)
    with torch.no_grad():
        other.head.bias[0] = float("nan")
    with pytest.raises(ParityError, match="logits at batch 1 differ by nan"):
        check_parity(other, artifact.template, artifact.weights, inputs)
