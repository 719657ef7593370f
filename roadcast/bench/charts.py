"""Results as charts in SVG: distribution, latency, heat and clocks over time, stages; ``--plot``. Owns no number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from math import ceil, floor, log10
from statistics import median

from devices.latency.result import STAGES, Result
from devices.latency.sensors import Moment
from devices.latency.soak import Soak, Window
from roadcast.demo import svg

_POINTS = 240
"""Of a line: more than a screen shows apart."""
_FEW_DECADES = 2.5
_CHART = 290
"""Height of one chart below another."""
ORDER = ("queue", *STAGES)
"""Of stages in a chart; others come after them."""
SOAKED = {
    "latency, ms": {"p50_ms": "p50", "p99_ms": "p99"},
    "hottest zone, °C": {"celsius": "°C"},
    "clocks, MHz": {"clock_mhz": "cores", "gpu_mhz": "GPU"},
    "resident memory, MB": {"memory_mb": "MB"},
}
"""Charts of a soak: title → field of a window → name of its line."""


def css() -> str:
    """The style of every page and plot."""
    return files("roadcast.demo").joinpath("report.css").read_text(encoding="utf-8")


def plot(result: Result) -> str:
    """The distribution of one result's latencies as an SVG file that needs nothing else."""
    drawn = distribution([result], [""])
    return drawn.replace(">", f' xmlns="http://www.w3.org/2000/svg">\n<style>\n{css()}</style>', 1)


def plot_soak(found: Soak) -> str:
    """Latency, heat, clocks and memory of a soak, below each other in one SVG file; what is unknown is left out."""
    drawn = [chart for _, chart in soaked(found) if chart]
    charts = [
        chart.replace("<svg", f'<svg y="{_CHART * at}" width="560" height="280"', 1) for at, chart in enumerate(drawn)
    ]
    size = f'viewBox="0 0 560 {_CHART * len(charts)}"'
    body = "\n".join(charts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>\n{css()}</style>\n{body}\n</svg>\n'


def soaked(found: Soak) -> Iterator[tuple[str, str]]:
    """Title and chart of what a soak watched; "" for what was not measured."""
    for title, fields in SOAKED.items():
        lines = [
            svg.Series(label, points)
            for field, label in fields.items()
            if (points := _of_windows(found.windows, field))
        ]
        yield title, _over_time(lines, title, "{:g}".format) if lines else ""


def distribution(results: Sequence[Result], names: Sequence[str]) -> str:
    """Share of queries by latency, whose axis is logarithmic: one stall does not hide the rest."""
    lines = []
    for label, result in zip(names, results, strict=True):
        ordered = sorted(result.raw.latencies)
        last = len(ordered) - 1
        at = sorted({round(last * step / _POINTS) for step in range(_POINTS + 1)})
        lines.append(svg.Series(label, [(log10(max(ordered[i], 1) / 1e6), (i + 1) / len(ordered)) for i in at]))
    shown = [x for line in lines for x, _ in line.points]
    return svg.line_chart(
        lines,
        title="latency distribution",
        x_label="milliseconds",
        y_text=lambda y: f"{100 * y:.0f} %",
        x_ticks=_decades(min(shown), max(shown)),
        x_text=lambda x: f"{10**x:g}",
        dots=False,
    )


def latency_over_time(results: Sequence[Result], names: Sequence[str]) -> str:
    """Medians of neighbouring queries."""
    lines = []
    for label, result in zip(names, results, strict=True):
        raw = result.raw
        size = max(len(raw.starts) // _POINTS, 1)
        groups = range(0, len(raw.starts), size)
        points = [(raw.starts[i] / 1e9, median(raw.latencies[i : i + size]) / 1e6) for i in groups]
        lines.append(svg.Series(label, points))
    return _over_time(lines, "latency over time", "{:g} ms".format)


def heat_over_time(results: Sequence[Result], names: Sequence[str]) -> str:
    """The hottest zone; "" where no board has any."""
    lines = _of_moments(results, names, lambda moment: moment.celsius, "")
    return _over_time(lines, "temperature over time", "{:g} °C".format) if any(one.points for one in lines) else ""


def clocks_over_time(results: Sequence[Result], names: Sequence[str]) -> str:
    """The cores' clock and a Jetson's GPU's; "" where no board says."""
    cores = _of_moments(results, names, lambda moment: moment.clock_mhz, "cores")
    gpus = [one for one in _of_moments(results, names, lambda moment: moment.gpu_mhz, "GPU") if one.points]
    known = gpus or any(one.points for one in cores)
    return _over_time([*cores, *gpus], "clocks over time", "{:g} MHz".format) if known else ""


def stages(results: Sequence[Result], names: Sequence[str]) -> str:
    """Means of the stages, end to end."""
    told = dict.fromkeys(stage for result in results for stage in result.stages)
    ordered = sorted(told, key=lambda stage: ORDER.index(stage) if stage in ORDER else len(ORDER))
    means = [[r.stages[stage].mean_ms if stage in r.stages else 0.0 for stage in ordered] for r in results]
    chart = svg.stacked_rows(names, ordered, means, title="stages", text="{:.3g} ms".format)
    return chart if len(ordered) > 1 else chart + svg.legend(ordered)


def _decades(low: float, high: float) -> list[float]:
    """Marks of a logarithmic axis that cover low to high, in powers of ten: 1, 2 and 5 of each, or fewer over many."""
    span = high - low
    factors = (1, 2, 5) if span < _FEW_DECADES else (1,)
    marks = [log10(factor) + power for power in range(floor(low), ceil(high) + 1) for factor in factors]
    first = max((at for at, mark in enumerate(marks) if mark <= low), default=0)
    last = min((at for at, mark in enumerate(marks) if mark >= high and at > first), default=len(marks) - 1)
    return marks[first : last + 1]


def _over_time(lines: Sequence[svg.Series], title: str, text: svg.Text) -> str:
    label = f"{title} by seconds" if "," in title else "seconds since the run began"
    return svg.line_chart(lines, title=title, x_label=label, y_text=text, dots=False)


def _of_windows(windows: Sequence[Window], field: str) -> list[tuple[float, float]]:
    found = ((window.at_s, getattr(window, field)) for window in windows)
    return [(at_s, value) for at_s, value in found if value is not None]


def _of_moments(
    results: Sequence[Result], names: Sequence[str], value: Callable[[Moment], float | None], what: str
) -> list[svg.Series]:
    """A line of each result, so that it keeps its colour; without points where nothing was measured."""
    lines = []
    for name, result in zip(names, results, strict=True):
        points = [(moment.at_s, found) for moment in result.moments if (found := value(moment)) is not None]
        lines.append(svg.Series(f"{name} {what}".strip(), points))
    return lines
