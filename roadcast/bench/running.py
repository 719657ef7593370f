"""One run: load, warm up, measure between two readings of the sensors, put the result together; owns no statistics."""

from __future__ import annotations

from pathlib import Path

from devices.latency.load import Clock, Plan, SystemClock, measure, warm_up
from devices.latency.result import Result, result_of
from devices.latency.sensors import Sensors, between
from roadcast.bench.job import Job
from roadcast.bench.subject import open_model


def run_job(path: Path, job: Job, *, clock: Clock | None = None, sensors: Sensors | None = None) -> Result:
    """Measure a model on this machine.

    Args:
        path: as for `open_model`.
        job: how.
        clock: this machine's own unless given.
        sensors: likewise.

    Raises:
        ConfigError, DataError, IncompatibleError, NotReadyError: as `open_model` says.
    """
    clock, sensors = clock or SystemClock(), sensors or Sensors()
    begun, plan = clock.wall(), job.plan
    model = open_model(path, batch=plan.batch, threads=job.threads, end_to_end=job.end_to_end, runner=job.runner)
    try:
        loaded = clock.wall()
        warm_up(model.steps, Plan(queries=1, warm_up_queries=1, warm_up_seconds=0), clock)
        first = clock.wall()
        warm_up(model.steps, plan, clock)
        fresh = sensors.forget_peak()
        before = sensors.read()
        trace = measure(model.steps, plan, clock)
        after = sensors.read()
        return result_of(
            trace,
            plan,
            model.subject,
            between(before, after, pinned=sensors.pinned()),
            load_ms=(loaded - begun) / 1e6,
            first_ms=(first - loaded) / 1e6,
            peak_mb=sensors.peak_mb(),
            peak_since_start=not fresh,
        )
    finally:
        model.close()
