"""A soak: one model under load until the time is over, window by window; owns no judgement (`devices.latency.soak`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from devices.boards import Machine
from devices.latency.load import Clock, measure
from devices.latency.power import PowerMeter
from devices.latency.result import summarise
from devices.latency.sensors import Sensors, between
from devices.latency.soak import LEAST_WINDOWS, WINDOW_S, Soak, Window, judge, window_of
from roadcast.bench.drawing import drawn
from roadcast.bench.job import Job
from roadcast.bench.subject import Measurable

Told = Callable[[Window], None]
"""Hears of each window as it ends."""


def soak(model: Measurable, job: Job, clock: Clock, sensors: Sensors, machine: Machine, told: Told) -> Soak:
    """Keep a model busy for `job.soak_s` seconds.

    Args:
        model: loaded and warm.
        job: how; its plan's `queries` and `seconds` do not count.
        clock: of this machine.
        sensors: likewise.
        machine: the board.
        told: hears of windows.
    """
    plan = replace(job.plan, queries=1, seconds=min(WINDOW_S, job.soak_s / (2 * LEAST_WINDOWS)))
    windows: list[Window] = []

    def run() -> None:
        begun = clock.wall()
        before = sensors.read()
        while clock.wall() - begun < job.soak_s * 1e9:
            summary = summarise(measure(model.way.steps, plan, clock).latencies)
            after = sensors.read()
            between_them = between(before, after, pinned=None)
            windows.append(
                window_of(
                    summary,
                    (clock.wall() - begun) / 1e9,
                    clock_mhz=None if between_them.clock_mhz is None else between_them.clock_mhz[1],
                    gpu_mhz=None if after.gpu_hz is None else after.gpu_hz / 1e6,
                    celsius=after.celsius,
                    memory_mb=sensors.resident_mb(),
                    throttled=between_them.throttle_events,
                    slowed_by=after.slowed_by or (),
                )
            )
            told(windows[-1])
            before = after

    meter = PowerMeter(machine, sensors, clock.wall) if job.power else None
    draw = drawn(meter, run, clock, lambda: sum(window.queries for window in windows) * plan.batch)
    return Soak(
        subject=model.subject,
        samples=plan.batch,
        windows=tuple(windows),
        findings=judge(windows),
        draw=draw,
        power_mode=sensors.power_mode(),
        pinned=sensors.pinned(),
    )
