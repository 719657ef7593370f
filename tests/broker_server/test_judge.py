"""The judge's truth table."""

from __future__ import annotations

import pytest

from broker_server.distil_job import DistilResult, Scores
from broker_server.judge import judge
from edge_protocol.task import TIERS

NAN = float("nan")


def result(current: tuple[float, ...] | None, candidate: tuple[float, ...], *, higher: bool = True) -> DistilResult:
    """A result with one score per tier."""
    name = "accuracy" if higher else "mae"
    metrics: dict[str, dict[str, Scores]] = {
        tier: {"candidate": {name: score}} for tier, score in zip(TIERS, candidate, strict=False)
    }
    for tier, score in zip(TIERS, current or (), strict=False):
        metrics[tier]["current"] = {name: score}
    return DistilResult(headline=name, higher_is_better=higher, metrics=metrics, teacher={}, devices={}, parameters={})


@pytest.mark.parametrize(
    ("current", "candidate", "higher", "accepted"),
    [
        (None, (0.5, 0.5, 0.5), True, True),
        ((0.5, 0.5, 0.5), (0.6, 0.6, 0.6), True, True),
        ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), True, False),
        ((0.5, 0.5, 0.5), (0.4, 0.4, 0.4), True, False),
        ((0.5, 0.5, 0.5), (0.7, 0.7, 0.495), True, True),
        ((0.5, 0.5, 0.5), (0.9, 0.9, 0.48), True, False),
        ((4.0, 4.0, 4.0), (3.5, 3.5, 3.5), False, True),
        ((4.0, 4.0, 4.0), (4.5, 4.5, 4.5), False, False),
        ((4.0, 4.0, 4.0), (3.0, 3.0, 4.2), False, False),
        ((0.5, 0.5, 0.5), (0.9, 0.9, NAN), True, False),
        (None, (NAN, 0.5, 0.5), True, False),
        ((0.5, 0.5), (0.6, 0.6, 0.6), True, False),
    ],
)
def test_truth_table(
    current: tuple[float, ...] | None, candidate: tuple[float, ...], *, higher: bool, accepted: bool
) -> None:
    """Better on the mean and no tier much worse is accepted; the same, worse, lopsided and NaN are not."""
    verdict = judge(result(current, candidate, higher=higher))
    assert verdict.accepted is accepted
    assert verdict.reason


def test_tolerance_is_a_share_of_the_current_score() -> None:
    """A tier may lose 2 % by default, and as much as it is told."""
    lopsided = result((0.5, 0.5, 0.5), (0.9, 0.9, 0.48))
    assert judge(lopsided, tolerance=0.05).accepted
    assert "base" in judge(lopsided).reason


def test_nothing_to_judge_is_refused() -> None:
    """No tier, or a tier without a candidate, is not a release."""
    assert not judge(result(None, ())).accepted
    broken = result((0.5, 0.5, 0.5), (0.6, 0.6, 0.6))
    del broken.metrics["base"]["candidate"]
    assert judge(broken).reason == "a tier has no candidate"
