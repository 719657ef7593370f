"""Results for people: a run and a soak as tables for a terminal or a pipe; owns no figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from devices.latency.power import Draw
from devices.latency.result import Result, Summary
from devices.latency.soak import Soak, Window
from roadcast.output import table

if TYPE_CHECKING:
    from rich.console import RenderableType

ROWS = 20
"""Of a soak's timeline: more are not read."""


def result(found: Result) -> RenderableType:
    """A run: what ran it, throughput, the board's state, what was not measured, remarks, percentiles with bounds."""
    from rich.console import Group

    subject, sensed = found.subject, found.sensed
    shares = ", ".join(f"{provider} {share:.0%}" for provider, share in subject.providers.items())
    facts = {
        "peak memory": _or_none(found.peak_mb, "MB since the process began" if found.peak_since_start else "MB"),
        "energy": _or_none(found.energy_mj_per_sample, "mJ/sample"),
        **power(found.draw),
        "clocks": _or_none(sensed.clock_mhz and sensed.clock_mhz[1], f"MHz, {pinned(sensed.pinned)}"),
        **board(found),
    }
    reasons = dict.fromkeys(found.unmeasured.values())
    lacking = {why: [stage for stage, text in found.unmeasured.items() if text == why] for why in reasons}
    lines = [
        f"{subject.model}, {subject.precision}, on {subject.board}: ran on {shares}",
        f"{found.samples_per_s:.4g} samples/s; load {found.load_ms:.0f} ms, first query {found.first_ms:.3g} ms",
        "; ".join(f"{name} {fact}" for name, fact in facts.items()),
        *(f"{stage}: {note}" for stage, note in found.notes.items()),
        *(f"not measured: {', '.join(stages)} ({why})" for why, stages in lacking.items()),
        *(f"remark: {remark}" for remark in found.remarks),
    ]
    beside = {f"({stage})": times for stage, times in found.beside.items()}
    drawn = percentiles("milliseconds", {"latency": found.latency, **found.stages, **beside, "CPU": found.cpu})
    return "\n".join([*lines, drawn]) if isinstance(drawn, str) else Group(*lines, drawn)


def percentiles(title: str, summaries: dict[str, Summary]) -> RenderableType:
    """Lay summaries out, with the bounds of the first."""
    first = next(iter(summaries.values()))
    names = [f"p{one.percentile:g}" for one in first.percentiles]
    rows: list[tuple[str | None, ...]] = []
    for name, summary in summaries.items():
        rows.append((name, f"{summary.mean_ms:.4g}", *(f"{one.ms:.4g}" for one in summary.percentiles)))
    bounds = [one.bound_ms for one in first.percentiles]
    rows.append(("latency is at most", None, *(None if bound is None else f"{bound:.4g}" for bound in bounds)))
    return table(title, ("what", "mean", *names), rows)


def board(found: Result) -> dict[str, str]:
    """Power mode, heat and throttling of a run, for people."""
    sensed = found.sensed
    alerts = "".join(f", {alert}" for alert in sensed.slowed_by or ())
    times = "" if sensed.throttle_events is None else f", {sensed.throttle_events} times"
    throttled = {None: "not measured", True: f"yes{times}{alerts}", False: "no"}[sensed.throttled]
    return {
        "power mode": found.power_mode or "not measured",
        "hottest zone": _or_none(sensed.celsius and sensed.celsius[1], "°C"),
        "throttled": throttled,
    }


def pinned(clocks: bool | None) -> str:  # noqa: FBT001 - a reading, not a switch
    """Whether clocks stay where they are, for people."""
    return "pinned: " + {None: "not measured", True: "yes", False: "no"}[clocks]


def _or_none(value: float | None, unit: str) -> str:
    return "not measured" if value is None else f"{value:.4g} {unit}"


def soak(found: Soak) -> RenderableType:
    """A soak: its timeline in at most `ROWS` lines, and the verdict."""
    from rich.console import Group

    rows = [_row(part) for part in _parts(found.windows)]
    columns = ("seconds", "queries", "p50 ms", "p99 ms", "max ms", "MHz", "°C", "MB", "throttled")
    drawn = table(f"{found.subject.model} on {found.subject.board}", columns, rows)
    drawn_power = "; ".join(f"{name} {fact}" for name, fact in power(found.draw).items()) or "power not measured"
    state = f"power mode {found.power_mode or 'not measured'}; clocks {pinned(found.pinned)}"
    verdict = [f"finding: {text}" for text in found.findings] or ["verdict: the board keeps this load up"]
    lines = [drawn_power, state, *verdict]
    return "\n".join([drawn, *lines]) if isinstance(drawn, str) else Group(drawn, *lines)


def told(found: dict[str, Any]) -> RenderableType:
    """What a device said of itself."""
    facts = [("release", f"{found['task']}/{found['release']}"), *((name, found[name]) for name in ("ran", "queries"))]
    figures = [(name, f"{value:.4g}") for name, value in found["values"].items()]
    return table(found["device"], ("figure", "value"), [*facts, *figures])


def _parts(windows: Sequence[Window]) -> list[Sequence[Window]]:
    size = -(-len(windows) // ROWS)
    return [windows[at : at + size] for at in range(0, len(windows), size)]


def _row(part: Sequence[Window]) -> tuple[object, ...]:
    """Some windows as one line: the slowest of them, and the board at the end."""
    last, counts = part[-1], [window.throttled for window in part if window.throttled is not None]
    slowest = [max(getattr(window, name) for window in part) for name in ("p50_ms", "p99_ms", "max_ms")]
    board = [None if value is None else f"{value:.0f}" for value in (last.clock_mhz, last.celsius, last.memory_mb)]
    throttled = ", ".join(last.slowed_by) or (sum(counts) if counts else None)
    latencies = [f"{value:.4g}" for value in slowest]
    return (f"{last.at_s:.0f}", sum(window.queries for window in part), *latencies, *board, throttled)


def power(draw: Draw | None) -> dict[str, str]:
    """What a run drew, for people; nothing where that was not measured."""
    if draw is None:
        return {}
    whole = {"board": "the board's rail", "rails": "a sum of rails", "rapl": "CPU packages"}.get(
        draw.source, draw.source
    )
    idle = f"{draw.idle_watts:.3g} W idle"
    return {
        "power": f"{draw.watts:.3g} W by {whole}, {idle}",
        "above idle": f"{draw.mj_per_sample_above_idle:.4g} mJ/sample",
    }
