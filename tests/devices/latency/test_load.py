"""Queries are issued as the scenario says, and every nanosecond is where it belongs."""

from __future__ import annotations

from math import inf, nan

import pytest

from devices.latency.load import QUEUE, Plan, SystemClock, measure, warm_up
from edge_protocol.errors import ConfigError
from tests.fakes.latency import WorkClock


def test_one_after_the_other_until_both_minima_are_reached() -> None:
    """Ten queries of 3 + 7 ns: the second of run time asks for more than the five that were wanted at least."""
    clock = WorkClock()
    steps = [("a", clock.work(3)), ("b", clock.work(7))]
    trace = measure(steps, Plan(queries=5, seconds=100e-9), clock)
    assert trace.latencies == [10] * 10
    assert trace.starts == list(range(0, 100, 10))
    assert trace.stages == {"a": [3] * 10, "b": [7] * 10}
    assert trace.cpu == [10] * 10
    assert len(measure(steps, Plan(queries=25, seconds=100e-9), clock).starts) == 25


def test_a_step_takes_what_the_one_before_gave() -> None:
    """The first gets the number of the query."""
    clock = WorkClock()
    seen: list[object] = []

    def first(query: int) -> str:
        clock.now += 1
        return f"sample {query}"

    measure([("first", first), ("second", seen.append)], Plan(queries=3, seconds=0), clock)
    assert seen == ["sample 0", "sample 1", "sample 2"]


def test_warming_up_keeps_both_minima() -> None:
    """By number and by time, whichever takes longer."""
    clock = WorkClock()
    warm_up([("a", clock.work(10))], Plan(warm_up_queries=4, warm_up_seconds=0), clock)
    assert clock.used == 40
    warm_up([("a", clock.work(10))], Plan(warm_up_queries=4, warm_up_seconds=200e-9), clock)
    assert clock.used == 240


def test_a_stall_of_the_server_is_felt_by_those_behind_it() -> None:
    """One query of 10 ms at 1,000 a second: later ones wait, and their latency counts from when they were due."""
    clock = WorkClock()
    trace = measure(
        [("infer", clock.work(lambda query: 10_000_000 if query == 3 else 1_000))],
        Plan(scenario="server", rate_hz=1000, queries=40, seconds=0),
        clock,
    )
    assert all(wait == 0 for wait in trace.stages[QUEUE][:3])
    assert trace.stages["infer"][4] == 1_000
    assert trace.latencies[4] > 5_000_000
    assert [a + b for a, b in zip(trace.stages[QUEUE], trace.stages["infer"], strict=True)] == trace.latencies
    assert sum(trace.cpu) == clock.used
    assert clock.slept > 0


def test_due_times_are_poisson_and_the_same_for_a_seed() -> None:
    """The mean distance is the rate's inverse, and a seed gives the same times."""

    def starts(seed: int) -> list[int]:
        clock = WorkClock()
        plan = Plan(scenario="server", rate_hz=1e6, queries=4000, seconds=0, seed=seed)
        return measure([("infer", clock.work(1))], plan, clock).starts

    assert starts(1) == starts(1) != starts(2)
    assert starts(1)[-1] / 4000 == pytest.approx(1000, rel=0.1)


@pytest.mark.parametrize(
    "wrong",
    [{"queries": 0}, {"seconds": -1.0}, {"samples": 0}, {"scenario": "server"}, {"rate_hz": 5.0}],
)
def test_a_plan_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    """No query, negative time, no sample, a server without a rate, a rate without a server."""
    with pytest.raises(ConfigError):
        Plan(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "endless",
    [
        *({"scenario": "server", "rate_hz": rate} for rate in (inf, nan, 1e300, -inf, 1e-9, 5e-324)),
        *({name: number} for name in ("seconds", "warm_up_seconds") for number in (inf, nan, 1e9)),
        {"warm_up_seconds": -1.0},
        {"queries": 10**9},
        {"scenario": "server", "rate_hz": 1e6, "seconds": 3600.0},
    ],
)
def test_a_plan_that_would_not_end_or_fit_is_refused(endless: dict[str, object]) -> None:
    """Rates at which no time passes or years do, times that no clock reaches, more queries than memory holds."""
    with pytest.raises(ConfigError, match=r"rate|--seconds|--queries"):
        Plan(**endless)  # type: ignore[arg-type]


def test_scenarios_know_their_query_sizes() -> None:
    """One, eight, sixty-four and one; a number of one's own wins."""
    assert [Plan(scenario=name).batch for name in ("single-stream", "multi-stream", "offline")] == [1, 8, 64]
    assert Plan(scenario="offline", samples=3).batch == 3


def test_the_machines_own_clocks_go_forward() -> None:
    """Wall and CPU time rise, and sleeping costs hardly any CPU."""
    clock = SystemClock()
    wall, cpu = clock.wall(), clock.cpu()
    clock.sleep(20_000_000)
    assert clock.wall() - wall >= 20_000_000
    assert 0 <= clock.cpu() - cpu < clock.wall() - wall
