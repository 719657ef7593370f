"""What the benchmark of shared trunks makes of its two arms; the rounds themselves are the product's."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.learning.shared_trunks import ARMS, FLEET, SHARED, outcome_of


def seed(before: float, after: float, sizes: list[int]) -> dict[str, Any]:
    """One seed of an arm in which everybody has the same error."""
    names = (*SHARED, *FLEET)
    errors = {"before": {name: [before] for name in names}, "after": {name: [after] for name in names}}
    return {"made": errors | {"refused": 1, "bytes": sizes}, "cpu_s": 2.0}


def test_the_worst_seed_decides() -> None:
    """One seed gains and one loses: the ratio of each is told, and the target is missed by the one that lost."""
    plain, ours = ARMS
    runs = {plain: [seed(5, 4, []), seed(5, 4, [])], ours: [seed(5, 3, [100]), seed(5, 4.4, [300])]}
    found = outcome_of(runs, judge=True)
    assert found.figures["ratio"] == {key: pytest.approx([0.75, 1.1]) for key in ("unseen", "own")}
    assert [(target.value, target.met) for target in found.targets] == [
        (pytest.approx(1.1), False),
        (pytest.approx(1.1), False),
        (300, True),
    ]
    assert found.rows[2] == [ours, "5.000 → 3.700", "5.000 → 3.700", 2]
    assert not outcome_of(runs, judge=False).targets
