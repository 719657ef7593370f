"""The judge's truth table."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from broker_server.distil_job import DistilResult, Paired, Scores
from broker_server.floor import Floor
from broker_server.judge import JudgeRules, judge
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
    assert judge(lopsided, JudgeRules(tolerance=0.05)).accepted
    assert "base" in judge(lopsided).reason


def test_nothing_to_judge_is_refused() -> None:
    """No tier, or a tier without a candidate, is not a release."""
    assert not judge(result(None, ())).accepted
    broken = result((0.5, 0.5, 0.5), (0.6, 0.6, 0.6))
    del broken.metrics["base"]["candidate"]
    assert judge(broken).reason == "a tier has no candidate"


def flips(rng: np.random.Generator, samples: int, broken: float, mended: float) -> Paired:
    """A cohort of a classifier at 0.8 of which these shares of samples were broken and mended."""
    loss = rng.choice([1.0, -1.0, 0.0], samples, p=[broken, mended, 1 - broken - mended])
    doubt = float(loss.std(ddof=1) / np.sqrt(samples))
    return Paired(samples=samples, current=0.8, candidate=0.8 - loss.mean(), loss=float(loss.mean()), doubt=doubt)


def with_cohorts(cohorts: dict[str, Paired], *, higher: bool = True) -> DistilResult:
    """A result that is better on the whole, with cohorts of one tier."""
    better = result((0.5, 0.5, 0.5), (0.6, 0.6, 0.6) if higher else (0.4, 0.4, 0.4), higher=higher)
    return msgspec.structs.replace(better, cohorts={"small": cohorts})


def test_a_cohort_that_is_lost_refuses_a_candidate_that_is_better_on_the_whole() -> None:
    """The reason names tier, cohort, before, after and how many samples; the worst of two is named."""
    rng = np.random.default_rng(0)
    lost, half = flips(rng, 200, 0.5, 0.0), flips(rng, 200, 0.3, 0.0)
    verdict = judge(with_cohorts({"class/van": half, "class/bus": lost, "class/car": flips(rng, 200, 0.02, 0.1)}))
    assert not verdict.accepted
    assert verdict.reason.startswith("small: cohort class/bus 0.8 → 0.")
    assert verdict.reason.endswith("on 200 samples")


def test_a_tiny_cohort_has_no_say() -> None:
    """Ten samples, all lost, do not refuse; told that ten are enough, they do."""
    cohort = {"class/bus": Paired(samples=10, current=0.8, candidate=0.0, loss=0.8, doubt=0.01)}
    assert judge(with_cohorts(cohort)).accepted
    assert not judge(with_cohorts(cohort), JudgeRules(least=10)).accepted


def test_a_cohort_may_have_a_tolerance_of_its_own() -> None:
    """A class that the operator gives up may fall as far as it likes; the others may not."""
    cohort = {"class/bus": Paired(samples=100, current=0.8, candidate=0.4, loss=0.4, doubt=0.02)}
    assert not judge(with_cohorts(cohort)).accepted
    assert judge(with_cohorts(cohort), JudgeRules(cohorts={"class/bus": 1.0})).accepted
    assert not judge(with_cohorts(cohort), JudgeRules(cohorts={"class/car": 1.0})).accepted


def test_an_error_that_grows_in_a_cohort_is_a_loss() -> None:
    """For a forecast the tolerance is a share of the current error."""
    grown = Paired(samples=100, current=4.0, candidate=4.6, loss=0.6, doubt=0.05)
    assert "sensor/a 4 → 4.6" in judge(with_cohorts({"sensor/a": grown}, higher=False)).reason
    assert judge(with_cohorts({"sensor/a": grown}, higher=False), JudgeRules(cohort_tolerance=0.15)).accepted


def test_chance_alone_seldom_refuses() -> None:
    """Of 300 candidates that mend as much as they break in 18 cohorts of 40 samples, at most 5 % are refused."""
    rng = np.random.default_rng(1)
    names = [f"class/{at}" for at in range(18)]
    verdicts = [judge(with_cohorts({name: flips(rng, 40, 0.15, 0.15) for name in names})) for _ in range(300)]
    assert sum(not verdict.accepted for verdict in verdicts) <= 15


def test_a_lost_cohort_is_found_among_many() -> None:
    """Of 100 candidates that break half of one of 18 cohorts, at least 95 are refused."""
    rng = np.random.default_rng(2)
    others = [f"class/{at}" for at in range(17)]
    found = [
        judge(with_cohorts({"class/bus": flips(rng, 40, 0.5, 0.0)} | {n: flips(rng, 40, 0.1, 0.1) for n in others}))
        for _ in range(100)
    ]
    assert sum("class/bus" in verdict.reason for verdict in found) >= 95


def instalment(bus: float, kept: float, *, samples: int = 60, tier: float = 0.9) -> DistilResult:
    """A candidate a little better on the whole that keeps a share of a class, in every tier."""
    lost = bus * (1 - kept)
    spread = float(np.sqrt(bus * (1 - bus) / samples))
    pair = Paired(
        samples=samples, current=bus, candidate=bus - lost, loss=lost, doubt=(lost / samples) ** 0.5, spread=spread
    )
    better = result((tier,) * 3, (tier + 0.001,) * 3)
    return msgspec.structs.replace(better, cohorts={name: {"class/bus": pair} for name in TIERS})


def test_a_class_is_not_lost_by_instalments() -> None:
    """A class that loses less than its tolerance a round is refused once it is far below its best, and stays there."""
    floor, bus, refused = Floor(basis="", release=1), 0.8, 0
    for _ in range(20):
        candidate = instalment(bus, 0.955)
        assert judge(candidate).accepted
        verdict = judge(candidate, floor=floor)
        if verdict.accepted:
            floor, bus = floor.raised(candidate), bus * 0.955
        else:
            refused += 1
            assert "cohort class/bus 0.8 → 0.5" in verdict.reason
            assert verdict.reason.endswith("from the best that was released")
    assert bus > 0.5
    assert refused > 5


def test_a_tier_is_not_lost_by_instalments() -> None:
    """One tier may fall to twice its tolerance below its best while the others gain, no further."""
    floor = Floor(basis="", release=1).raised(result((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))
    step = result((0.6, 0.6, 0.485), (0.7, 0.7, 0.4801))
    assert judge(step, floor=floor).accepted
    lower = judge(result((0.6, 0.6, 0.485), (0.7, 0.7, 0.4799)), floor=floor)
    assert (lower.accepted, lower.reason) == (False, "base: accuracy 0.5 → 0.4799, from the best that was released")
    assert judge(result((0.6, 0.6, 0.485), (0.7, 0.7, 0.4799))).accepted


def test_a_lucky_best_does_not_stop_the_fleet() -> None:
    """The floor is the best of a hundred students alike, who differ on three samples of ten: few are refused."""
    rng = np.random.default_rng(3)
    names, spread = [f"class/{at}" for at in range(18)], (0.8 * 0.2 / 60) ** 0.5
    usual = rng.random((18, 60)) < 0.8

    def draw() -> DistilResult:
        right = np.where(rng.random((18, 60)) < 0.3, rng.random((18, 60)) < 0.8, usual).mean(axis=1)
        pairs = {
            name: Paired(samples=60, current=0.0, candidate=float(score), loss=0.0, doubt=0.05, spread=spread)
            for name, score in zip(names, right, strict=True)
        }
        return with_cohorts(pairs)

    floor = Floor(basis="", release=1)
    for _ in range(100):
        floor = floor.raised(draw())
    assert sum("best" in judge(draw(), floor=floor).reason for _ in range(300)) <= 15
