"""Results against budgets: what fits, why the rest does not, and which is chosen."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.latency.fit import UNITS, Budgets, Candidate, choose, judge, one_board, parse_budget
from devices.latency.power import Draw
from devices.latency.result import Result
from devices.latency.sensors import Sensed
from edge_models.tasks import load_task
from edge_protocol.errors import ConfigError
from edge_protocol.task import TIERS
from tests.fakes.latency import NOTHING_SENSED, SUBJECT, result

SPEC = load_task("vehicle")
MS = 1_000_000


def one(tier: str = "nano", p95_ms: float | None = 1.0, **changes: Any) -> Candidate:
    """A candidate that fits."""
    fixed = {"student": "s", "precision": "fp32", "runner": "ort", **changes}
    return Candidate(tier=tier, latency_p95_ms=p95_ms, **fixed)


def measured(**changes: Any) -> Result:
    """A result of 1,000 queries of 2 ms, with changes."""
    return result([2 * MS] * 1000, **changes)


def test_a_result_within_its_budgets_fits() -> None:
    """All three budgets kept, to the last millisecond and megabyte; power from the processor's energy."""
    sensed = msgspec.structs.replace(NOTHING_SENSED, energy_j=10.0)
    found = judge(measured(sensed=sensed), SPEC, Budgets(latency_p95_ms=2.0, memory_mb=80.0, power_w=5.001))
    assert (found.tier, found.student, found.precision, found.runner) == ("nano", "depthwise", "fp32", "ort")
    assert (found.latency_p95_ms, found.memory_mb) == (2.0, 80.0)
    assert found.power_w == pytest.approx(5.0)
    assert found.rejected == ()
    assert found.settings == {"tier": "nano", "precision": "plain", "runner": "onnxruntime"}


def test_the_boards_own_power_counts_before_its_processors() -> None:
    """A board with a sensor says what all of it draws."""
    sensed = msgspec.structs.replace(NOTHING_SENSED, energy_j=10.0)
    whole = msgspec.structs.replace(measured(sensed=sensed), draw=Draw("board", 7.5, 5.0, 15.0, 5.0))
    assert judge(whole, SPEC, Budgets(power_w=7.0)).rejected == ("power 7.5 W, at most 7",)


@pytest.mark.parametrize(
    ("told", "budgets", "reason"),
    [
        (measured(), Budgets(latency_p95_ms=1.9), "p95 2 ms, at most 1.9"),
        (measured(), Budgets(memory_mb=79), "memory 80 MB, at most 79"),
        (measured(peak_mb=None), Budgets(memory_mb=79), "memory not measured"),
        (measured(), Budgets(power_w=7), "power not measured on this board"),
        (result([MS] * 20), Budgets(latency_p95_ms=2), "p95 too few queries: a bound needs"),
        (result([MS] * 900 + [9 * MS] * 100), Budgets(latency_p95_ms=2), "p95 9 ms, at most 2"),
        (measured(scenario="offline"), Budgets(), "measured as offline with 64 samples"),
        (measured(samples=2), Budgets(), "2 samples a query"),
        (
            measured(subject=msgspec.structs.replace(SUBJECT, runner="ort-cuda")),
            Budgets(),
            "which no device serves with",
        ),
        (
            measured(subject=msgspec.structs.replace(SUBJECT, model="speed nano mlp")),
            Budgets(),
            "no student of task 'vehicle'",
        ),
        (measured(subject=msgspec.structs.replace(SUBJECT, model="vehicle nano mixer")), Budgets(), "no student of"),
        (measured(subject=msgspec.structs.replace(SUBJECT, model="model.onnx")), Budgets(), "no student of"),
        (measured(subject=msgspec.structs.replace(SUBJECT, model="")), Budgets(), "no student of"),
    ],
)
def test_what_does_not_fit_says_why(told: Result, budgets: Budgets, reason: str) -> None:
    """Over a budget, not measured though asked for, or a result of something else."""
    found = judge(told, SPEC, budgets)
    assert len(found.rejected) == 1
    assert reason in found.rejected[0]
    assert choose([found]) is None


def test_every_broken_budget_is_named() -> None:
    """Not only the first."""
    found = judge(measured(), SPEC, Budgets(latency_p95_ms=1, memory_mb=1, power_w=1))
    assert [text.split()[0] for text in found.rejected] == ["p95", "memory", "power"]


def test_the_largest_student_that_fits_is_chosen_and_of_it_the_fastest() -> None:
    """A larger one that does not fit, and a faster smaller one, are not."""
    found = [
        one("base", 0.1, rejected=("no",)),
        one("small", 3.0),
        one("small", 2.0, precision="int8-cpu"),
        one("nano", 0.5),
    ]
    assert choose(found) is found[2]
    assert found[2].settings == {"tier": "small", "precision": "int8", "runner": "onnxruntime"}
    assert one(precision="int8-trt", runner="trt").settings["runner"] == "tensorrt", "which decides the variant too"
    assert choose([one("nano", None), one("nano", 5.0)]) == one("nano", 5.0)
    assert choose([]) is None


@given(st.lists(st.tuples(st.sampled_from(TIERS), st.floats(0.01, 100), st.booleans()), max_size=8))
def test_the_choice_never_depends_on_the_order_and_is_never_rejected(drawn: list[tuple[str, float, bool]]) -> None:
    """Nothing that fits is larger, or as large and faster."""
    found = [one(tier, p95, rejected=() if fits else ("no",)) for tier, p95, fits in drawn]
    choice = choose(found)
    assert choice == choose(reversed(found))
    fitting = [c for c in found if not c.rejected]
    assert (choice is None) == (not fitting)
    if choice is not None and choice.latency_p95_ms is not None:
        rank, p95 = TIERS.index(choice.tier), choice.latency_p95_ms  # type: ignore[arg-type]  # one of them
        assert not choice.rejected
        assert all((TIERS.index(c.tier), -(c.latency_p95_ms or 0)) <= (rank, -p95) for c in fitting)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("budget", "text", "value"),
    [
        ("latency_p95_ms", "40ms", 40.0),
        ("latency_p95_ms", "0.04 s", 40.0),
        ("latency_p95_ms", "500us", 0.5),
        ("memory_mb", "500MB", 500.0),
        ("memory_mb", "1GiB", 1073.741824),
        ("power_w", "7W", 7.0),
        ("power_w", "7500mW", 7.5),
    ],
)
def test_budgets_are_read_with_their_units(budget: Any, text: str, value: float) -> None:
    """A unit is always written."""
    assert parse_budget(budget, text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "40", "ms", "40 MB", "-1ms", "0ms", "1e3ms", "nanms", "40msms", "9" * 40 + "ms"])
def test_what_is_no_budget_is_refused_with_an_example(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ConfigError, match=r"write a number above 0 and one of .*ms"):
        parse_budget("latency_p95_ms", text)


@given(st.text(max_size=20), st.sampled_from(sorted(UNITS)))
def test_any_text_is_a_budget_above_zero_or_an_error_of_ours(text: str, budget: Any) -> None:
    """No other exception, no zero, nothing infinite."""
    with contextlib.suppress(ConfigError):
        assert 0 < parse_budget(budget, text) < float("inf")


def test_results_of_several_boards_are_refused() -> None:
    """A choice is for one board."""
    other = measured(subject=msgspec.structs.replace(SUBJECT, board="another board"))
    assert one_board([measured(), measured()]) == "a board"
    with pytest.raises(ConfigError, match=r"2 boards \(a board, another board\)"):
        one_board([measured(), other])
    with pytest.raises(ConfigError, match="0 boards"):
        one_board([])


def test_nothing_sensed_is_no_power() -> None:
    """Unknown stays unknown, never 0."""
    assert measured(sensed=Sensed(None, None, None, None, None, None)).watts is None
