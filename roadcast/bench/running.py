"""One run: load, warm up, measure between two readings of the sensors, put the result together; owns no statistics."""

from __future__ import annotations

from pathlib import Path

from devices.boards import Machine
from devices.latency.load import Clock, Plan, SystemClock, Trace, measure, warm_up
from devices.latency.power import PowerMeter
from devices.latency.result import Result, result_of
from devices.latency.sensors import Sensors, between
from devices.latency.soak import Soak
from roadcast.bench.drawing import drawn
from roadcast.bench.job import Job
from roadcast.bench.soaking import Told, soak
from roadcast.bench.subject import open_model


def run_job(
    path: Path, job: Job, *, clock: Clock | None = None, root: Path = Path("/"), told: Told = lambda _window: None
) -> Result | Soak:
    """Measure a model on this machine, or keep it busy where the job is a soak.

    Args:
        path: as for `open_model`.
        job: how.
        clock: this machine's own unless given.
        root: where this board's ``sys`` and ``proc`` are.
        told: hears of the windows of a soak.

    Raises:
        ConfigError, DataError, IncompatibleError, NotReadyError: as `open_model` says.
    """
    clock, sensors, machine = clock or SystemClock(), Sensors(root), Machine(root)
    begun, plan = clock.wall(), job.plan
    model = open_model(path, batch=plan.batch, threads=job.threads, end_to_end=job.end_to_end, runner=job.runner)
    try:
        loaded = clock.wall()
        warm_up(model.steps, Plan(queries=1, warm_up_queries=1, warm_up_seconds=0), clock)
        first = clock.wall()
        warm_up(model.steps, plan, clock)
        if job.soak_s:
            return soak(model, job, clock, sensors, machine, told)
        fresh = sensors.forget_peak()
        trace = Trace()
        before = sensors.read()

        def run() -> None:
            nonlocal trace, before
            before = sensors.read()
            trace = measure(model.steps, plan, clock)

        meter = PowerMeter(machine, sensors, clock.wall) if job.power else None
        draw = drawn(meter, run, clock, lambda: len(trace.starts) * plan.batch)
        return result_of(
            trace,
            plan,
            model.subject,
            between(before, sensors.read(), pinned=sensors.pinned()),
            draw,
            load_ms=(loaded - begun) / 1e6,
            first_ms=(first - loaded) / 1e6,
            peak_mb=sensors.peak_mb(),
            peak_since_start=not fresh,
        )
    finally:
        model.close()
