"""FedPer in two phases."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from broker_server.strategies.fedrep import FedRep
from edge_models.local_settings import LocalSettings
from edge_models.local_training import train_locally
from edge_models.students import build_student
from edge_models.students.arrays import arrays_of
from edge_models.tasks import load_task

SPEC = load_task("vehicle")


def test_the_head_goes_first() -> None:
    """The trunk is frozen in the first phase and the head in the second."""
    assert [phase.frozen for phase in FedRep({}).phases(LocalSettings())] == ["trunk", "head"]


def test_a_student_goes_through_both_phases() -> None:
    """After the first phase the trunk is as before, after the second the head is as after the first."""
    x = torch.randn(24, *SPEC.input.shape, generator=torch.Generator().manual_seed(0))
    targets = np.arange(24) % 3
    states = [arrays_of(student := build_student(SPEC, "nano"))]
    for phase in FedRep(states[0]).phases(LocalSettings(epochs=2, batch=12)):
        student = train_locally(student, x, targets, SPEC, phase)
        states.append(arrays_of(student))
    changed = [{name for name in then if not np.array_equal(then[name], now[name])} for then, now in pairwise(states)]
    assert changed[0] == {"head.weight", "head.bias"}
    assert changed[1]
    assert not changed[1] & changed[0]
