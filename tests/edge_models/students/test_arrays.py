"""Weights as plain arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edge_models.students import build_student
from edge_models.students.arrays import arrays_of, with_arrays
from edge_models.tasks import load_task
from edge_protocol.errors import IncompatibleError

SPEC = load_task("vehicle")


@pytest.mark.parametrize("tier", ["nano", "small", "base"])
def test_weights_come_back_as_they_were(tier: str) -> None:
    """Another student with these arrays answers the same; it was not changed itself."""
    one, other = build_student(SPEC, tier, seed=1), build_student(SPEC, tier, seed=2)
    before = arrays_of(other)
    x = torch.randn(4, *SPEC.input.shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, found = one.eval()(x)[1], with_arrays(other, arrays_of(one))(x)[1]
    assert torch.equal(expected, found)
    np.testing.assert_equal(arrays_of(other), before)


def test_arrays_are_copies() -> None:
    """Training on does not change what was sent, and what was sent may lie channels last."""
    student = build_student(SPEC, "nano").to(memory_format=torch.channels_last)
    arrays = arrays_of(student)
    kept = arrays["head.bias"].copy()
    with torch.no_grad():
        student.head.bias.add_(1)
    np.testing.assert_array_equal(arrays["head.bias"], kept)
    assert all(value.flags.c_contiguous for value in arrays.values())


def test_part_of_the_weights_can_be_replaced_and_strange_ones_are_refused() -> None:
    """The rest stays; a name or a shape of another student is an error that names it."""
    student = build_student(SPEC, "nano")
    changed = arrays_of(with_arrays(student, {"head.bias": np.full(6, 3, np.float32)}))
    assert (changed.pop("head.bias") == 3).all()
    np.testing.assert_equal(changed, {name: value for name, value in arrays_of(student).items() if name != "head.bias"})
    for strange in ({"trunk.nothing": np.zeros(1, np.float32)}, {"head.bias": np.zeros(5, np.float32)}):
        with pytest.raises(IncompatibleError, match=next(iter(strange))):
            with_arrays(student, strange)
