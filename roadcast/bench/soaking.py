"""A soak: one model under load until the time is over, window by window; owns no judgement (`devices.latency.soak`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from devices.boards import Machine
from devices.boards.thermal import Throttling, read_throttling
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
        before, slowed = sensors.read(), read_throttling(machine)
        while clock.wall() - begun < job.soak_s * 1e9:
            summary = summarise(measure(model.steps, plan, clock).latencies)
            after, slows = sensors.read(), read_throttling(machine)
            between_them = between(before, after, pinned=None)
            windows.append(
                window_of(
                    summary,
                    (clock.wall() - begun) / 1e9,
                    clock_mhz=None if between_them.clock_mhz is None else between_them.clock_mhz[1],
                    celsius=after.celsius,
                    memory_mb=sensors.resident_mb(),
                    throttled=_times(between_them.throttle_events, slowed, slows),
                    slowed_by=slows.reasons,
                )
            )
            told(windows[-1])
            before, slowed = after, slows

    meter = PowerMeter(machine, sensors, clock.wall) if job.power else None
    draw = drawn(meter, run, clock, lambda: sum(window.queries for window in windows) * plan.batch)
    return Soak(subject=model.subject, samples=plan.batch, windows=tuple(windows), findings=judge(windows), draw=draw)


def _times(by_cores: int | None, before: Throttling, after: Throttling) -> int | None:
    """Events of a window: as the cores count them, or else the board's own counter of over-current and heat."""
    if by_cores is not None:
        return by_cores
    return None if before.events is None or after.events is None else max(after.events - before.events, 0)
