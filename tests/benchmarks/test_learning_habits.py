"""What the benchmark of sensors' habits makes of its arms; the heads themselves are the product's."""

from __future__ import annotations

import pytest

from benchmarks.learning.habits import KINDS, outcome_of, told


def seed(with_habits: float) -> dict[str, list[list[float]]]:
    """Two devices whose heads err by 3 and 5 mph without habits."""
    errors = {"shared head": [[6.0] * 4] * 2}
    for kind in KINDS:
        errors[told(kind, habits=False)] = [[3.0] * 4, [5.0] * 4]
        errors[told(kind, habits=True)] = [[with_habits] * 4] * 2
    return errors


def test_the_worst_seed_decides_on_the_mean_of_devices() -> None:
    """3 for 4 mph is 0.75, and 4.4 is 1.1, which misses the target at every horizon."""
    good, mixed = outcome_of([seed(3.0)], judge=True), outcome_of([seed(3.0), seed(4.4)], judge=True)
    assert [target.value for target in good.targets] == pytest.approx([0.75] * 3)
    assert all(target.met for target in good.targets)
    assert [target.value for target in mixed.targets] == pytest.approx([1.1] * 3)
    assert not any(target.met for target in mixed.targets)
    assert mixed.figures["ratio"] == {kind: [pytest.approx([0.75] * 4), pytest.approx([1.1] * 4)] for kind in KINDS}
    assert mixed.rows[-1][1] == "0.925 (0.750 to 1.100)"
    assert not outcome_of([seed(3.0)], judge=False).targets
