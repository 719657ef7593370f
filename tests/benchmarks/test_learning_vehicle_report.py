"""What the figures of the comparison on cameras mean, and which of them `--check` lets pass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.learning.vehicle_arms import Found
from benchmarks.learning.vehicle_report import rows_of, targets_of, verdicts_of

IMAGES = 200


def found(last: float, right: Sequence[float] = (1.0, 0.0)) -> Found:
    """A run that ended with an accuracy, and was right about some images."""
    own = {"shared": [0.5, 0.7], "chosen": [0.8, 0.9]}
    return {"curve": [0.4, last], "right": list(right), "up": 400.0, "down": 1e5, "once": 1e6, "own": own, "cpu_s": 1.0}


def right_about(count: int) -> list[float]:
    """The first images right, the others wrong."""
    return [1.0] * count + [0.0] * (IMAGES - count)


@pytest.mark.parametrize(("more", "sure"), [(60, True), (1, False)])
def test_differences_are_judged_on_images(more: int, sure: bool) -> None:
    """Right about 60 of 200 images more is no chance; a single one more is."""
    runs = {"feddistill": [found(0.8, right_about(60))], "self": [found(0.7, right_about(60 - more))]}
    verdict = verdicts_of(runs)["self"]
    assert verdict.gaps == [pytest.approx(10)]
    assert verdict.sure == sure == (verdict.p < 0.05)


@pytest.mark.parametrize(
    ("ours", "more", "met"),
    [
        ((0.8, 0.82, 0.81), 60, True),
        ((0.8, 0.82, 0.69), 60, False),
        ((0.8, 0.82, 0.81), 1, False),
        ((0.6, 0.6, 0.6), -60, False),
    ],
)
def test_an_unsure_gain_misses_its_target(ours: Sequence[float], more: int, met: bool) -> None:
    """A mean that is ahead is not enough: it has to be in every seed, and beyond what the choice of images explains."""
    runs = {
        "feddistill": [found(last, right_about(100 + more)) for last in ours],
        "self": [found(0.7, right_about(100))] * 3,
        "central": [found(0.85, right_about(190))] * 3,
    }
    targets = targets_of(runs, verdicts_of(runs))
    closed, above = (next(t for t in targets if t.name.startswith(name)) for name in ("share", "points above self"))
    assert (closed.met, above.met) == (met, met)
    assert f"worst of 3 seeds {100 * (min(ours) - 0.7):+.1f}, p " in above.name


def test_own_tests_are_held_against_every_personal_rival() -> None:
    """FedRep too; a rival's better worst device misses."""
    runs = {name: [found(last)] for name, last in (("feddistill", 0.8), ("self", 0.7), ("central", 0.9))}
    runs["fedrep"] = [{**found(0.5), "own": {"chosen": [0.81, 0.85]}}]
    met = {target.name: target.met for target in targets_of(runs, verdicts_of(runs)) if target.name.startswith("own")}
    assert met == {
        "own test, mean, points above fedrep": True,
        "own test, worst device, points above fedrep": False,
        "own test, mean, points above shared only": True,
        "own test, worst device, points above shared only": True,
    }


def test_the_table() -> None:
    """A row a method, with the worst device beside the mean; without our method there is nobody to compare with."""
    runs = {name: [found(last, np.eye(2)[0].tolist())] for name, last in (("feddistill", 0.8), ("self", 0.75))}
    header, ours, control = rows_of(runs, verdicts_of(runs))
    assert len(header) == len(ours) == len(control)
    assert ours[:5] == ["feddistill", "40.0", "80 (80 to 80, n=1)", "", ""]
    assert control[3:5] == ["1", "+5.0"]
    assert "85.0, 80.0" in ours
    del runs["feddistill"]
    assert rows_of(runs, verdicts_of(runs))[1][3:5] == ["", ""]
