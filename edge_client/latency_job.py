"""The subprocess that measures a student's latency: ``python -m edge_client.latency_job FOLDER``; owns no device part.

It grants itself the lowest priority, so that frames come first, and says how much it had to share the processor.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from devices.runners.ort_runner import OrtRunner, open_student
from edge_client.disk import write_atomic
from edge_protocol.errors import RoadcastError

if TYPE_CHECKING:
    from devices.latency.result import Summary

JOB, RESULT, ERROR = "job.json", "result.json", "error"
LEAST_QUERIES = 200
"""Enough for a bound of p95."""
POOL = 8
_LOWEST = 19
_WARM_UP_S = 0.5


class LatencyJob(msgspec.Struct, frozen=True):
    """What is measured.

    Attributes:
        template, weights: paths of the release's files.
        shape: of one sample.
        seconds: measured at least.
        threads: that one inference may use.
    """

    template: str
    weights: str
    shape: tuple[int, ...]
    seconds: float
    threads: int


class LatencyResult(msgspec.Struct, frozen=True):
    """What came of it: the provider that ran, and what a `Measured` holds."""

    ran: str
    queries: int
    values: dict[str, float]


def main(folder: Path) -> None:
    """Do the job of a folder, and write its result there."""
    os.nice(_LOWEST)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")  # this process goes first, not the agent
    try:
        job = msgspec.json.decode((folder / JOB).read_bytes(), type=LatencyJob)
        found = run(job)
    except (RoadcastError, OSError, msgspec.DecodeError) as error:
        (folder / ERROR).write_text(str(error), encoding="utf-8")
        sys.exit(1)
    write_atomic(folder / RESULT, msgspec.json.encode(found))


def run(job: LatencyJob) -> LatencyResult:
    """Measure a student in ONNX Runtime, one sample in a query.

    Raises:
        IncompatibleError: the files do not fit each other.
        OSError: they cannot be read.
    """
    from devices.latency.load import Plan, SystemClock, measure, warm_up  # noqa: PLC0415  # the agent needs no such tools
    from devices.runners.ort_proof import providers_that_ran  # noqa: PLC0415

    template, weights = Path(job.template).read_bytes(), Path(job.weights).read_bytes()
    pool = np.random.default_rng(0).normal(size=(POOL, 1, *job.shape)).astype(np.float32)
    ran = providers_that_ran(
        lambda profile: open_student(template, weights, threads=job.threads, profile=profile), {"input": pool[0]}
    )
    plan = Plan(queries=LEAST_QUERIES, seconds=job.seconds, warm_up_queries=POOL, warm_up_seconds=_WARM_UP_S)
    clock = SystemClock()
    with OrtRunner(template, weights, threads=job.threads) as runner:
        steps = [("infer", lambda query: runner.infer(pool[query % POOL]))]
        warm_up(steps, plan, clock)
        trace = measure(steps, plan, clock)
    return LatencyResult(max(ran, key=ran.__getitem__), len(trace.starts), _values(trace.latencies, trace.cpu))


def _values(latencies: list[int], cpu: list[int]) -> dict[str, float]:
    from devices.latency.result import summarise  # noqa: PLC0415

    wall, used = summarise(latencies), summarise(cpu)
    values = {f"p{at}_ms": wall.at(at).ms for at in (50, 90, 95, 99)}
    values |= {"max_ms": wall.max_ms, "cpu_p50_ms": used.at(50).ms}
    values |= {f"p{at}_bound_ms": bound for at in (95, 99) if (bound := _bound(wall, at)) is not None}
    if used.at(50).ms:
        values["contended"] = wall.at(50).ms / used.at(50).ms
    return values


def _bound(summary: Summary, at: float) -> float | None:
    return summary.at(at).bound_ms


if __name__ == "__main__":
    main(Path(sys.argv[1]))
