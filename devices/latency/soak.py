"""A long run in windows, and what may be said of it: slower, throttled, still heating, growing; pure.

Percentiles are those of one window; nothing is left out, and no query is kept, so a day takes no more memory than a
minute. What is judged are medians of quarters of the run, so that one stall decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Annotated

import msgspec
from msgspec import Meta

from devices.latency.power import Draw
from devices.latency.result import Subject, Summary

WINDOW_S = 5.0
LEAST_WINDOWS = 8
SLOWER, CLOCK_FELL, GROWN = 0.05, 0.02, 0.05
"""Relative changes from which a run is no longer even: of p50, of the clock, of memory."""
GROWN_MB = 5.0
"""Memory that may come and go with the allocator."""
HEATING_C_PER_MINUTE = 0.5


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of the run; None: not measured.

    Attributes:
        at_s: when it ended, since the run began.
        queries: answered in it.
        p50_ms, p90_ms, p99_ms, max_ms: of its latencies.
        clock_mhz: mean of the cores at its end.
        gpu_mhz: clock of a Jetson's GPU then.
        celsius: hottest zone then.
        memory_mb: resident memory of the process then.
        throttled: times in it that the processor was slowed by heat or over-current.
        slowed_by: alerts that are on at its end.
    """

    at_s: float
    queries: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    clock_mhz: float | None = None
    gpu_mhz: float | None = None
    celsius: float | None = None
    memory_mb: float | None = None
    throttled: int | None = None
    slowed_by: tuple[str, ...] = ()


class Soak(msgspec.Struct, frozen=True, kw_only=True, tag_field="format", tag="roadcast-soak-1"):
    """A long run.

    Attributes:
        subject: what was measured, and on what.
        samples: in a query.
        windows: in order, at least one.
        findings: why the board does not keep this load up; empty: it does, as long as it was watched.
        draw: of the whole run; None: not measured, or not asked for.
        power_mode: of a Jetson; None: not measured.
        pinned: whether clocks stay where they are; None: not measured.
    """

    subject: Subject
    samples: Annotated[int, Meta(ge=1)]
    windows: Annotated[tuple[Window, ...], Meta(min_length=1)]
    findings: tuple[str, ...]
    draw: Draw | None = None
    power_mode: str | None = None
    pinned: bool | None = None


def window_of(summary: Summary, at_s: float, **sensed: object) -> Window:
    """Put a window together from its latencies and what the sensors said at its end."""
    values = {f"p{p}_ms": summary.at(p).ms for p in (50, 90, 99)}
    return msgspec.convert(
        {"at_s": at_s, "queries": summary.count, "max_ms": summary.max_ms, **values, **sensed}, Window
    )


def judge(windows: Sequence[Window]) -> tuple[str, ...]:
    """Say why a board does not keep this load up."""
    if len(windows) < LEAST_WINDOWS:
        return (f"too short to judge: {len(windows)} windows, {LEAST_WINDOWS} are needed; let it run longer",)
    found = [_slower(windows), _throttled(windows), _clock(windows), _heating(windows), _grown(windows)]
    return tuple(text for text in found if text)


def _quarters(windows: Sequence[Window], value: Callable[[Window], float | None]) -> tuple[float, float] | None:
    """Medians of the second and the last quarter: the first is for warming up."""
    size = len(windows) // 4
    early, late = (
        [number for window in part if (number := value(window)) is not None]
        for part in (windows[size : 2 * size], windows[-size:])
    )
    return (median(early), median(late)) if early and late else None


def _slower(windows: Sequence[Window]) -> str:
    found = _quarters(windows, lambda window: window.p50_ms)
    if found is None or found[1] <= (1 + SLOWER) * found[0]:
        return ""
    return f"slower: p50 went from {found[0]:.3g} to {found[1]:.3g} ms"


def _throttled(windows: Sequence[Window]) -> str:
    times = sum(window.throttled or 0 for window in windows)
    alerts = sorted({alert for window in windows for alert in window.slowed_by})
    if not times and not alerts:
        return ""
    first = next(window.at_s for window in windows if window.throttled or window.slowed_by)
    named = f" ({', '.join(alerts)})" if alerts else ""
    return f"throttled{named}: {times} times, first in the window that ended at {first:.0f} s"


def _clock(windows: Sequence[Window]) -> str:
    found = _quarters(windows, lambda window: window.clock_mhz)
    if found is None or found[1] >= (1 - CLOCK_FELL) * found[0]:
        return ""
    return f"the clock fell from {found[0]:.0f} to {found[1]:.0f} MHz"


def _heating(windows: Sequence[Window]) -> str:
    last = [window for window in windows[-(len(windows) // 4) :] if window.celsius is not None]
    if len(last) < 2:  # noqa: PLR2004 - a slope needs two points
        return ""
    half = len(last) // 2
    early, late = last[:half], last[half:]
    rise = median(w.celsius or 0.0 for w in late) - median(w.celsius or 0.0 for w in early)
    minutes = (median(w.at_s for w in late) - median(w.at_s for w in early)) / 60
    if not minutes or rise / minutes <= HEATING_C_PER_MINUTE:
        return ""
    return f"still heating by {rise / minutes:.1f} °C a minute: let it run longer"


def _grown(windows: Sequence[Window]) -> str:
    found = _quarters(windows, lambda window: window.memory_mb)
    if found is None or found[1] - found[0] <= max(GROWN * found[0], GROWN_MB):
        return ""
    times = _quarters(windows, lambda window: window.at_s)
    assert times is not None
    rate = (found[1] - found[0]) / max(times[1] - times[0], 1.0) * 3600
    return f"memory grows: {found[0]:.0f} to {found[1]:.0f} MB ({rate:.0f} MB an hour)"
