"""How queries are issued: the four scenarios of MLPerf Inference, with a clock as an argument; owns no model.

``single-stream`` and ``multi-stream`` issue a query when the last one is done, ``offline`` does so with large batches.
``server`` issues at random times (Poisson) that do not wait for the last answer: latency counts from the time a query
was due, so that a stall is felt by every query behind it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from edge_protocol.errors import ConfigError

Scenario = Literal["single-stream", "multi-stream", "offline", "server"]
SAMPLES: dict[Scenario, int] = {"single-stream": 1, "multi-stream": 8, "offline": 64, "server": 1}
"""Samples in a query."""
METRIC: dict[Scenario, float | None] = {"single-stream": 90.0, "multi-stream": 99.0, "offline": None, "server": 99.0}
"""The percentile that a scenario is judged by; None: samples per second."""
QUEUE = "queue"
"""Name of the stage between the time a query was due and the time it began."""

MOST_QUERIES, MOST_SECONDS, MOST_RATE_HZ = 10**7, 30 * 86_400.0, 1e6
"""Every query is kept, and the distance between two is told in nanoseconds."""

Step = Callable[[Any], Any]
"""Takes what the step before it gave; the first takes the number of the query."""


class Clock(Protocol):
    """Wall and CPU time of this process, in nanoseconds from any beginning."""

    def wall(self) -> int:
        """Read the wall clock."""
        ...

    def cpu(self) -> int:
        """CPU time that this process has used in all its threads."""
        ...

    def sleep(self, duration_ns: int) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's own clocks."""

    wall = staticmethod(time.perf_counter_ns)
    cpu = staticmethod(time.process_time_ns)

    @staticmethod
    def sleep(duration_ns: int) -> None:
        """Wait."""
        time.sleep(duration_ns / 1e9)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured.

    Attributes:
        scenario: how queries are issued.
        queries: measured at least.
        seconds: measured at least.
        warm_up_queries, warm_up_seconds: run before, at least, and not measured.
        samples: in a query; None: as the scenario has it.
        rate_hz: queries per second of ``server``.
        seed: of the times of ``server``.

    Raises:
        ConfigError: a number is out of range, ``server`` has no rate, or the run would never end.
    """

    scenario: Scenario = "single-stream"
    queries: int = 1024
    seconds: float = 10.0
    warm_up_queries: int = 50
    warm_up_seconds: float = 2.0
    samples: int | None = None
    rate_hz: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.queries < 1 or self.seconds < 0 or (self.samples is not None and self.samples < 1):
            raise ConfigError("a run needs at least one query of one sample, and no negative number of seconds")
        if (self.scenario == "server") != (self.rate_hz > 0):
            raise ConfigError("the scenario server needs a rate above 0 in queries per second, and no other takes one")
        if not self.rate_hz <= MOST_RATE_HZ:
            raise ConfigError(f"--rate: at most {MOST_RATE_HZ:.0f} queries per second, not {self.rate_hz:g}")
        lasts = (self.warm_up_seconds, self.seconds, self.queries / self.rate_hz if self.rate_hz > 0 else 0.0)
        if not all(0 <= seconds <= MOST_SECONDS for seconds in lasts):
            raise ConfigError(
                f"a run lasts {MOST_SECONDS / 86_400:.0f} days at most: other --seconds, --warm-up or --queries, or "
                "a higher --rate"
            )
        if not max(self.queries, self.seconds * self.rate_hz) <= MOST_QUERIES:
            raise ConfigError(
                f"a run keeps {MOST_QUERIES} queries at most: fewer --queries or --seconds, a lower --rate"
            )

    @property
    def batch(self) -> int:
        """Samples in a query."""
        return self.samples or SAMPLES[self.scenario]


@dataclass(frozen=True, eq=False)
class Trace:
    """What was measured, one entry per query.

    Attributes:
        starts: when it was due, nanoseconds since the run began.
        ends: when it was answered.
        cpu: CPU time that the process used since the query before it ended.
        stages: nanoseconds per stage; they add up to the latency.
        beside: nanoseconds of what happened within a stage, or meanwhile in another process.
    """

    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    cpu: list[int] = field(default_factory=list)
    stages: dict[str, list[int]] = field(default_factory=dict)
    beside: dict[str, list[int]] = field(default_factory=dict)

    @property
    def latencies(self) -> list[int]:
        """Nanoseconds from due to answered."""
        return [end - start for start, end in zip(self.starts, self.ends, strict=True)]


def warm_up(steps: Sequence[tuple[str, Step]], plan: Plan, clock: Clock) -> None:
    """Issue queries one after the other that are not measured, as many as the plan says."""
    begun, query = clock.wall(), 0
    while query < plan.warm_up_queries or clock.wall() - begun < plan.warm_up_seconds * 1e9:
        value: Any = query
        for _, step in steps:
            value = step(value)
        query += 1


def measure(steps: Sequence[tuple[str, Step]], plan: Plan, clock: Clock) -> Trace:
    """Issue queries as the plan says.

    Args:
        steps: names and functions that a query goes through, at least one.
        plan: how much.
        clock: read once more per query than there are steps.
    """
    return (_open_loop if plan.scenario == "server" else _closed_loop)(steps, plan, clock)


def _closed_loop(steps: Sequence[tuple[str, Step]], plan: Plan, clock: Clock) -> Trace:
    """The next query is due when the last one is done."""
    columns: list[tuple[Step, Callable[[int], None]]] = []
    stages: dict[str, list[int]] = {}
    for name, step in steps:
        stages[name] = []
        columns.append((step, stages[name].append))
    starts: list[int] = []
    ends: list[int] = []
    used: list[int] = []
    wall, cpu = clock.wall, clock.cpu
    least, least_ns, query = plan.queries, plan.seconds * 1e9, 0
    spent, begun = cpu(), wall()
    end = begun
    while query < least or end - begun < least_ns:
        value: Any = query
        start = mark = wall()
        for step, keep in columns:
            value = step(value)
            end = wall()
            keep(end - mark)
            mark = end
        now = cpu()
        used.append(now - spent)
        spent = now
        starts.append(start - begun)
        ends.append(end - begun)
        query += 1
    return Trace(starts, ends, used, stages)


def _open_loop(steps: Sequence[tuple[str, Step]], plan: Plan, clock: Clock) -> Trace:
    """Queries are due at random times, whether or not the last one is done."""
    trace = Trace(stages={name: [] for name in (QUEUE, *(name for name, _ in steps))})
    draw = random.Random(plan.seed)
    spent, begun = clock.cpu(), clock.wall()
    due = begun
    while len(trace.starts) < plan.queries or due - begun < plan.seconds * 1e9:
        due += round(draw.expovariate(plan.rate_hz) * 1e9)
        if (wait := due - clock.wall()) > 0:
            clock.sleep(wait)
        mark = max(clock.wall(), due)
        trace.stages[QUEUE].append(mark - due)
        value: Any = len(trace.starts)
        for name, step in steps:
            value = step(value)
            end = clock.wall()
            trace.stages[name].append(end - mark)
            mark = end
        now = clock.cpu()
        trace.cpu.append(now - spent)
        spent = now
        trace.starts.append(due - begun)
        trace.ends.append(mark - begun)
    return trace
