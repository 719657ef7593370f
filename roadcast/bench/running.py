"""One run: load, warm up, measure between two readings of the sensors, put the result together; owns no statistics."""

from __future__ import annotations

from pathlib import Path

from devices.boards import Machine
from devices.latency.load import Clock, Plan, SystemClock, Trace, measure, warm_up
from devices.latency.power import PowerMeter
from devices.latency.result import Result, result_of
from devices.latency.sensors import Moment, Sensors, between
from devices.latency.soak import Soak
from edge_protocol.errors import ConfigError
from roadcast.bench import loadgen
from roadcast.bench.drawing import drawn
from roadcast.bench.job import Job
from roadcast.bench.soaking import Told, soak
from roadcast.bench.subject import Measurable, open_model
from roadcast.bench.watching import Watch


def run_job(
    path: Path,
    job: Job,
    *,
    clock: Clock | None = None,
    machine: Machine | None = None,
    told: Told = lambda _window: None,
    logs: Path | None = None,
) -> Result | Soak:
    """Measure a model on this machine, or keep it busy where the job is a soak.

    Args:
        path: as for `open_model`.
        job: how.
        clock: this machine's own unless given.
        machine: the board; this one unless given.
        told: hears of the windows of a soak.
        logs: folder for the files of LoadGen, where that issues the queries.

    Raises:
        ConfigError: LoadGen does not soak, or as `open_model` and `load_loadgen` say.
        DataError, IncompatibleError, NotReadyError, StoreError: as `open_model` and `roadcast.bench.loadgen.drive` say.
    """
    if job.driver == "loadgen":
        if job.soak_s:
            raise ConfigError("--soak has windows, which LoadGen does not know: leave out --driver")
        loadgen.load_loadgen(job.plan)
    clock, machine = clock or SystemClock(), machine or Machine()
    sensors = Sensors(machine.root, machine)
    model = open_model(path, job)
    try:
        begun = clock.wall()
        warm_up(model.way.steps, Plan(queries=1, warm_up_queries=1, warm_up_seconds=0), clock)
        first_ms = (clock.wall() - begun) / 1e6
        warm_up(model.way.steps, job.plan, clock)
        if job.soak_s:
            return soak(model, job, clock, sensors, machine, told)
        return _measured(model, job, clock, sensors, machine, first_ms, logs)
    finally:
        model.close()


def _measured(
    model: Measurable,
    job: Job,
    clock: Clock,
    sensors: Sensors,
    machine: Machine,
    first_ms: float,
    logs: Path | None,
) -> Result:
    """Measure a warm model."""
    way, plan, fresh = model.way, job.plan, sensors.forget_peak()
    other = job.driver == "loadgen"
    trace, moments, before = Trace(), tuple[Moment, ...](), sensors.read()

    def run() -> None:
        nonlocal trace, moments, before
        watch = Watch(sensors, clock.wall)
        before = sensors.read()
        watch.begin()
        try:
            trace = loadgen.drive(way.steps, plan, clock, logs) if other else measure(way.steps, plan, clock)
        finally:
            moments = watch.end()

    meter = PowerMeter(machine, sensors, clock.wall) if job.power else None
    draw = drawn(meter, run, clock, lambda: len(trace.starts) * plan.batch)
    sensed = between(before, sensors.read(), pinned=sensors.pinned())
    trace.beside.update(way.beside(len(trace.starts)))
    return result_of(
        trace,
        plan,
        model.subject,
        sensed,
        draw,
        {**way.notes, loadgen.WAY: loadgen.note()} if other else way.notes,
        load_ms=model.load_ms,
        first_ms=first_ms,
        peak_mb=sensors.peak_mb(),
        peak_since_start=not fresh,
        moments=moments,
        power_mode=sensors.power_mode(),
    )
