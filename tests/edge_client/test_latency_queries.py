"""A measurement, a query at a time: what is counted, what is told of it, and what ends it."""

from __future__ import annotations

import numpy as np
import pytest
from typing_extensions import Self

from devices.runners.base import F4, Answer
from edge_client.latency_queries import LEAST, POOL, Found, Queries, values_of
from edge_client.pipelines import Bundle
from edge_client.standby import WithStandby
from edge_models.head_weights import HeadWeights
from edge_protocol.errors import DeviceError
from tests.fakes.latency import WorkClock

MS = 1_000_000
SHAPE = (3, 4, 4)
GPU = "TensorRT 10.3.0 on compute capability 8.7"


class Timed:
    """A runner whose answers take what a clock is told, on a processor or beside it."""

    def __init__(self, clock: WorkClock, provider: str = "CPUExecutionProvider", wall_ms: int = 2) -> None:
        self.provider, self._clock, self._wall_ms = provider, clock, wall_ms
        self.asked: list[F4] = []
        self.broken: Exception | None = None

    def infer(self, x: F4) -> Answer:
        """Answer, or fail."""
        if self.broken is not None:
            raise self.broken
        self.asked.append(x)
        self._clock.used += MS
        self._clock.now += self._wall_ms * MS
        return Answer(np.zeros((len(x), 64), np.float32), np.zeros((len(x), 6), np.float32))

    def close(self) -> None:
        """Hold nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Hold nothing."""


def run(queries: Queries, bundle: Bundle, most: int = 10_000) -> int:
    """Step until there is an outcome; say how many steps it took."""
    for number in range(most):
        if queries.outcome is not None:
            return number
        queries.step(bundle)
    raise AssertionError(f"no outcome after {most} steps")


@pytest.mark.parametrize(("seconds", "counted"), [(0.1, LEAST), (1.0, 500)])
def test_queries_are_counted_after_a_warm_up_until_both_bounds_are_met(seconds: float, counted: int) -> None:
    """Half a second of warm-up at 2 ms, then at least 200 queries and at least the seconds asked for, of one sample."""
    clock = WorkClock()
    runner = Timed(clock)
    queries = Queries(Bundle(3, runner), SHAPE, seconds, clock)
    steps = run(queries, Bundle(3, runner))
    assert isinstance(queries.outcome, Found)
    assert queries.outcome.queries == counted
    assert steps - counted == 250
    assert {x.shape for x in runner.asked} == {(1, *SHAPE)}
    assert len({x.tobytes() for x in runner.asked}) == POOL
    queries.step(Bundle(3, runner))
    assert len(runner.asked) == steps, "what is done is not asked again"


def test_a_slow_student_is_warmed_up_by_a_number_of_queries() -> None:
    """At 400 ms half a second is two queries, and eight are not counted."""
    clock = WorkClock()
    runner = Timed(clock, wall_ms=400)
    queries = Queries(Bundle(3, runner), SHAPE, 1.0, clock)
    assert run(queries, Bundle(3, runner)) == POOL + LEAST


def test_percentiles_bounds_and_contention_are_told_of_a_processor() -> None:
    """Of 1 to 1000 ms: the percentiles, a bound above each, and wall over CPU time."""
    wall = [number * MS for number in range(1, 1001)]
    told = values_of(wall, [value // 2 for value in wall], on_cpu=True)
    assert (told["p50_ms"], told["p95_ms"], told["max_ms"]) == (
        pytest.approx(500, abs=1),
        pytest.approx(950, abs=1),
        1000,
    )
    assert told["p95_ms"] <= told["p95_bound_ms"] <= 1000
    assert told["p99_ms"] <= told["p99_bound_ms"] <= 1000
    assert told["contended"] == pytest.approx(2)


def test_no_contention_is_told_of_a_gpu_and_no_bound_of_few_queries() -> None:
    """A thread that waits for a GPU uses no CPU time, and 200 queries allow no bound of p99."""
    told = values_of([2 * MS] * LEAST, [MS] * LEAST, on_cpu=False)
    assert told["cpu_p50_ms"] == 1
    assert "contended" not in told
    assert "p95_bound_ms" in told
    assert "p99_bound_ms" not in told
    assert "contended" not in values_of([MS] * LEAST, [0] * LEAST, on_cpu=True), "a clock that stands still"


def test_a_plan_is_asked_itself_and_a_failing_query_does_not_let_go_of_it() -> None:
    """The queries fail and say why; the plan goes on serving, for only a frame decides that it does not."""
    clock, failures = WorkClock(), list[str]()
    plan, standby = Timed(clock, GPU), Timed(clock)
    pair = WithStandby(plan, standby, failures.append)
    queries = Queries(Bundle(3, pair), SHAPE, 0.1, clock)
    queries.step(Bundle(3, pair))
    plan.broken = DeviceError("CUDA error 719")
    queries.step(Bundle(3, pair))
    assert queries.outcome == f"{GPU} did not answer: CUDA error 719"
    assert (failures, pair.provider, standby.asked) == ([], GPU, [])


def test_a_runtime_that_fails_in_any_way_is_an_outcome() -> None:
    """Nothing is raised in the thread that answers frames."""
    clock = WorkClock()
    runner = Timed(clock)
    runner.broken = ZeroDivisionError("a runtime's own")
    queries = Queries(Bundle(3, runner), SHAPE, 0.1, clock)
    queries.step(Bundle(3, runner))
    assert queries.outcome == "CPUExecutionProvider did not answer: a runtime's own"


def test_only_what_answers_frames_is_measured() -> None:
    """Another release, a plan that a frame let go of, and nothing at all end it; another personal head does not."""
    clock = WorkClock()
    plan, other = Timed(clock, GPU), Timed(clock)
    for change in ("release", "plan", "nothing"):
        pair = WithStandby(plan, Timed(clock), lambda _: None)
        bundle = Bundle(3, pair)
        queries = Queries(bundle, SHAPE, 0.1, clock)
        assert (queries.release, queries.ran) == (3, GPU)
        head = HeadWeights(np.zeros((6, 64), np.float32), np.zeros(6, np.float32))
        queries.step(Bundle(3, pair, head))
        assert queries.outcome is None
        if change == "plan":
            plan.broken = DeviceError("CUDA error 719")
            pair.infer(np.zeros((1, *SHAPE), np.float32))
            plan.broken = None
        queries.step({"release": Bundle(4, other), "plan": bundle, "nothing": None}[change])
        assert queries.outcome == "what answers frames changed meanwhile; ask again"
        queries.step(bundle)
        assert queries.queries == 0
