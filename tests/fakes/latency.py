"""A clock that work moves, and results made of given times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from devices.latency.load import Plan, Scenario, Trace
from devices.latency.result import Result, Subject, result_of
from devices.latency.sensors import Sensed
from devices.latency.soak import Soak

NOTHING_SENSED = Sensed(None, None, None, None, None, None)
SUBJECT = Subject(
    model="vehicle nano depthwise",
    sha256="0" * 64,
    weights_sha256="1" * 64,
    runner="ort",
    providers={"CPUExecutionProvider": 1.0},
    precision="fp32",
    threads=1,
    board="a board",
    software="onnxruntime 1",
    cores=2,
)


@dataclass
class WorkClock:
    """Wall and CPU time in nanoseconds that pass only in work and in sleep."""

    now: int = 1_000
    used: int = 0
    slept: int = 0

    def wall(self) -> int:
        """Read the wall clock."""
        return self.now

    def cpu(self) -> int:
        """Read the CPU's."""
        return self.used

    def sleep(self, duration_ns: int) -> None:
        """Let time pass without work."""
        self.now += duration_ns
        self.slept += duration_ns

    def work(self, takes: Callable[[int], int] | int) -> Callable[[Any], Any]:
        """A step that takes so many nanoseconds of both clocks, or as many as a function of the query's number says."""

        def step(value: Any) -> Any:
            spent = takes if isinstance(takes, int) else takes(value)
            self.now += spent
            self.used += spent
            return value

        return step


def result(
    latencies: Sequence[int],
    *,
    cpu: Sequence[int] | None = None,
    sensed: Sensed = NOTHING_SENSED,
    subject: Subject = SUBJECT,
    scenario: Scenario = "single-stream",
    samples: int | None = None,
    peak_mb: float | None = 80.0,
    **more: Any,
) -> Result:
    """A result of these latencies in nanoseconds, one after the other."""
    starts = [0, *accumulate(latencies[:-1])]
    ends = [start + latency for start, latency in zip(starts, latencies, strict=True)]
    trace = Trace(starts, ends, list(cpu or latencies), {"infer": list(latencies)})
    plan = Plan(scenario=scenario, samples=samples, rate_hz=1.0 if scenario == "server" else 0.0)
    known: dict[str, Any] = {"load_ms": 20.0, "first_ms": 1.0, "peak_mb": peak_mb, "peak_since_start": False}
    return result_of(trace, plan, subject, sensed, **known, **more)


def measured(found: Result | Soak) -> Result:
    """The result of a run that was no soak."""
    assert isinstance(found, Result)
    return found
