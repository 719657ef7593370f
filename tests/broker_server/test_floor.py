"""The best accepted scores, and when they begin anew."""

from __future__ import annotations

import msgspec

from broker_server.distil_job import DistilResult, Paired
from broker_server.floor import WHOLE, Best, Floor, basis_of, fitting
from broker_server.judge import JudgeRules
from edge_protocol.task import TIERS

BASIS = basis_of("pack", JudgeRules())


def result(tier: float, bus: float, *, before: float = 0.5, higher: bool = True) -> DistilResult:
    """A candidate whose tiers and ``class/bus`` have these scores; the current ones have `before`."""
    pair = Paired(samples=60, current=before, candidate=bus, loss=before - bus, doubt=0.02, spread=0.05)
    return DistilResult(
        headline="score",
        higher_is_better=higher,
        metrics={each: {"current": {"score": before}, "candidate": {"score": tier}} for each in TIERS},
        teacher={},
        devices={},
        parameters={},
        cohorts={each: {"class/bus": pair} for each in TIERS},
    )


def test_the_best_of_each_score_is_kept() -> None:
    """What rose keeps the newer score, what fell the older one; for an error the lower one is best."""
    empty = Floor(basis=BASIS, release=1)
    for higher, better, worse in ((True, 0.6, 0.4), (False, 0.4, 0.6)):
        once = empty.raised(result(better, worse, higher=higher))
        assert once.best["nano"] == {WHOLE: Best(better), "class/bus": Best(0.5, 0.05)}
        again = once.raised(result(worse, better, before=worse, higher=higher))
        assert again.best["base"] == {WHOLE: Best(better), "class/bus": Best(better, 0.05)}
    assert empty.best == {}


def test_what_is_not_a_number_is_no_best() -> None:
    """A score that could not be measured neither stands nor hides a later one."""
    nan = float("nan")
    once = Floor(basis=BASIS, release=1).raised(result(0.6, nan, before=nan))
    assert "class/bus" not in once.best["nano"]
    assert once.raised(result(0.6, 0.7)).best["nano"]["class/bus"].score == 0.7


def test_a_floor_holds_for_the_same_pack_rules_and_release_only() -> None:
    """Another validation pack, another rule or somebody else's release begins an empty one."""
    floor = Floor(basis=BASIS, release=3).raised(result(0.6, 0.6))
    assert fitting(floor, BASIS, 3) is floor
    for basis, release in (
        (basis_of("other", JudgeRules()), 3),
        (basis_of("pack", JudgeRules(cohort_tolerance=0.2)), 3),
        (BASIS, 4),
    ):
        assert fitting(floor, basis, release) == Floor(basis=basis, release=release)
    assert fitting(None, BASIS, 0).best == {}


def test_a_floor_survives_the_disk() -> None:
    """As JSON and back it is the same."""
    floor = Floor(basis=BASIS, release=3).raised(result(0.6, 0.6))
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(floor)), Floor) == floor
