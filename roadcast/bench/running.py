"""One run: load, warm up, measure between two readings of the sensors, put the result together; owns no statistics."""

from __future__ import annotations

from pathlib import Path

from devices.latency.load import Clock, Plan, SystemClock, measure, warm_up
from devices.latency.power_meter import PowerMeter
from devices.latency.result import Result, result_of
from devices.latency.sensors import Sensors, between
from roadcast.bench.subject import open_model


def run_bench(
    path: Path,
    plan: Plan,
    *,
    threads: int = 1,
    end_to_end: bool = False,
    runner: str = "ort",
    clock: Clock | None = None,
    sensors: Sensors | None = None,
) -> Result:
    """Measure a model on this machine.

    Args:
        path: as for `open_model`.
        plan: how much, and how queries are issued.
        threads: that one inference may use.
        end_to_end: as for `open_model`.
        runner: likewise.
        clock: this machine's own unless given.
        sensors: likewise.

    Raises:
        ConfigError, DataError, IncompatibleError, NotReadyError: as `open_model` says.
    """
    clock, sensors = clock or SystemClock(), sensors or Sensors()
    begun = clock.wall()
    model = open_model(path, batch=plan.batch, threads=threads, end_to_end=end_to_end, runner=runner)
    try:
        loaded = clock.wall()
        warm_up(model.steps, Plan(queries=1, warm_up_queries=1, warm_up_seconds=0), clock)
        first = clock.wall()
        warm_up(model.steps, plan, clock)
        fresh = sensors.forget_peak()
        before = sensors.read()
        with PowerMeter(sensors.watts) as meter:
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
            board_watts=meter.watts,
        )
    finally:
        model.close()
