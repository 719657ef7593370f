"""One latency measurement of the runner that answers frames, a query at a time; owns no thread, no runner, no link."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from devices.runners.base import Runner
from devices.runners.ort_runner import CPU
from edge_client.pipelines import Bundle
from edge_client.standby import WithStandby

if TYPE_CHECKING:
    from devices.latency.load import Clock
    from devices.latency.result import Summary

LEAST = 200
"""Enough for a bound of p95."""
POOL = 8
_WARM_UP_NS = 500_000_000


class Found(msgspec.Struct, frozen=True):
    """What came of it: how many queries were measured, and what a `Measured` holds of them."""

    queries: int
    values: dict[str, float]


class OwnClock:
    """Wall time, and CPU time of the thread that asks: it does a query's work alone where a student has one thread.

    Args:
        threads: that one inference may use; with several the CPU time is the whole process's.
    """

    wall = staticmethod(time.perf_counter_ns)
    sleep = staticmethod(lambda duration_ns: time.sleep(duration_ns / 1e9))

    def __init__(self, threads: int) -> None:
        self.cpu = time.thread_time_ns if threads == 1 else time.process_time_ns


class Queries:
    """Asks the runner that answers frames, one sample in a query; `step` never raises.

    A plan is asked itself and not by way of its standby: a query that fails is no reason to let go of the plan.

    Args:
        bundle: what answers frames.
        shape: of one sample.
        seconds: measured at least, after a warm-up.
        clock: of the thread that steps.

    Attributes:
        release: that is measured.
        ran: provider that runs it, which a runner knows from having run.
        outcome: what was found, or why nothing was; None while it goes on. Another thread may read it.
    """

    def __init__(self, bundle: Bundle, shape: tuple[int, ...], seconds: float, clock: Clock) -> None:
        self.release, self.ran = bundle.release, bundle.runner.provider
        self.outcome: Found | str | None = None
        self._runner, self._seconds, self._clock = _asked(bundle.runner), seconds, clock
        self._pool = np.random.default_rng(0).normal(size=(POOL, 1, *shape)).astype(np.float32)
        self._wall: list[int] = []
        self._cpu: list[int] = []
        self._warm, self._begun = 0, 0

    def step(self, bundle: Bundle | None) -> None:
        """Ask once, if `bundle`, which answers frames now, still has the runner that is measured."""
        if self.outcome is not None:
            return
        if bundle is None or _asked(bundle.runner) is not self._runner:
            self.outcome = "what answers frames changed meanwhile; ask again"
            return
        try:
            self._ask()
        except Exception as error:  # noqa: BLE001 - frames are to go on whatever a runtime does
            self.outcome = f"{self.ran} did not answer: {error}"

    @property
    def queries(self) -> int:
        """Measured until now."""
        return len(self._wall)

    def _ask(self) -> None:
        clock, x = self._clock, self._pool[(self._warm + self.queries) % POOL]
        spent, begun = clock.cpu(), clock.wall()
        self._runner.infer(x)
        end, used = clock.wall(), clock.cpu() - spent
        self._begun = self._begun or begun
        if not self._wall and (self._warm < POOL or begun - self._begun < _WARM_UP_NS):
            self._warm += 1
            return
        self._begun = self._begun if self._wall else begun
        self._wall.append(end - begun)
        self._cpu.append(used)
        if self.queries >= LEAST and end - self._begun >= self._seconds * 1e9:
            self.outcome = Found(self.queries, values_of(self._wall, self._cpu, on_cpu=self.ran == CPU))


def values_of(wall: list[int], cpu: list[int], *, on_cpu: bool) -> dict[str, float]:
    """What is told of queries.

    Args:
        wall: nanoseconds that each took.
        cpu: CPU time of each, nanoseconds.
        on_cpu: whether a processor did all the work: only then does wall over CPU time say what else it had to do.
    """
    from devices.latency.result import summarise  # noqa: PLC0415  # most agents are never asked

    took, used = summarise(wall), summarise(cpu)
    values = {f"p{at}_ms": took.at(at).ms for at in (50, 90, 95, 99)}
    values |= {"max_ms": took.max_ms, "cpu_p50_ms": used.at(50).ms}
    values |= {f"p{at}_bound_ms": bound for at in (95, 99) if (bound := _bound(took, at)) is not None}
    if on_cpu and used.at(50).ms:
        values["contended"] = took.at(50).ms / used.at(50).ms
    return values


def _bound(summary: Summary, at: float) -> float | None:
    return summary.at(at).bound_ms


def _asked(runner: Runner) -> Runner:
    return runner.answering if isinstance(runner, WithStandby) else runner
