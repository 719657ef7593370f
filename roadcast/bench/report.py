"""Results as pictures: ``--plot`` draws one, ``bench report`` makes one HTML file of several. Owns no number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from statistics import median

from devices.latency.result import Result
from devices.latency.soak import Soak
from roadcast.demo import svg

_POINTS = 240
"""Of a line: more than a screen shows apart."""
_SHADES = 5
STAGES = ("capture", "decode", "preprocess", "infer", "head", "encode", "publish")
"""In the order of a frame's way; others come after them."""
_CHART = 290
"""Height of one chart below another."""
_SOAKED = {
    "latency, ms": {"p50_ms": "p50", "p99_ms": "p99"},
    "hottest zone, °C": {"celsius": "°C"},
    "clock, MHz": {"clock_mhz": "MHz"},
    "resident memory, MB": {"memory_mb": "MB"},
}


def page(results: Sequence[Result]) -> str:
    """The whole page as HTML, at least one result."""
    cards = "\n".join(_cards(results))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Roadcast latency</title>
<style>
{_css()}</style>
</head>
<body>
<main>
<h1>Latency</h1>
<p class="soft">A bound holds with 99 % confidence (MLPerf early stopping); a dash was not measured.</p>
<section class="cards">
{cards}
</section>
</main>
</body>
</html>
"""


def plot(result: Result) -> str:
    """The distribution of one result's latencies as an SVG file that needs nothing else."""
    drawn = _distribution([result], [""])
    return drawn.replace(">", f' xmlns="http://www.w3.org/2000/svg">\n<style>\n{_css()}</style>', 1)


def plot_soak(found: Soak) -> str:
    """Latency, heat, clock and memory of a soak over time, below each other in one SVG file; what is unknown is out."""
    charts: list[str] = []
    for title, fields in _SOAKED.items():
        lines = [
            svg.Series(label, points)
            for field, label in fields.items()
            if (points := [(window.at_s, y) for window in found.windows if (y := getattr(window, field)) is not None])
        ]
        if lines:
            drawn = svg.line_chart(lines, title=title, x_label=f"{title} by seconds", y_text="{:g}".format, dots=False)
            charts.append(drawn.replace("<svg", f'<svg y="{_CHART * len(charts)}" width="560" height="280"', 1))
    size = f'viewBox="0 0 560 {_CHART * len(charts)}"'
    body = "\n".join(charts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>\n{_css()}</style>\n{body}\n</svg>\n'


def name(result: Result) -> str:
    """A result for people, in a few words."""
    return f"{result.subject.model}, {result.subject.precision}, {result.scenario}"


def _css() -> str:
    return files("roadcast.demo").joinpath("report.css").read_text(encoding="utf-8")


def _cards(results: Sequence[Result]) -> Iterator[str]:
    several = len(results) > 1
    keys = [f"#{number}" if several else "" for number in range(1, len(results) + 1)]
    names = [f"{key} {name(result)}".lstrip() for key, result in zip(keys, results, strict=True)]
    legend = svg.legend(names) if several else ""
    yield _card("Results", "milliseconds per query", _table(results, names), wide=True)
    remarks = [
        f"<li>{escape(n)}: {escape(text)}</li>" for n, r in zip(names, results, strict=True) for text in r.remarks
    ]
    if remarks:
        yield _card("To be taken with care", "what the runs remarked upon", f"<ul>{''.join(remarks)}</ul>", wide=True)
    yield _card("Distribution", "share of queries answered within a time", _distribution(results, keys) + legend)
    yield _card("Timeline", "median of neighbouring queries", _timeline(results, keys) + legend)
    yield _card("Stages", "mean milliseconds of each step of a query", _stages(results, keys))
    yield _card("Model by device", "p90 in milliseconds; darker is slower", _heat(results), wide=True)


def _distribution(results: Sequence[Result], names: Sequence[str]) -> str:
    lines = []
    for label, result in zip(names, results, strict=True):
        ordered = sorted(result.raw.latencies)
        last = len(ordered) - 1
        at = sorted({round(last * step / _POINTS) for step in range(_POINTS + 1)})
        lines.append(svg.Series(label, [(ordered[i] / 1e6, (i + 1) / len(ordered)) for i in at]))
    return svg.line_chart(
        lines, title="latency distribution", x_label="milliseconds", y_text=lambda y: f"{100 * y:.0f} %", dots=False
    )


def _timeline(results: Sequence[Result], names: Sequence[str]) -> str:
    lines = []
    for label, result in zip(names, results, strict=True):
        raw = result.raw
        size = max(len(raw.starts) // _POINTS, 1)
        groups = range(0, len(raw.starts), size)
        points = [(raw.starts[i] / 1e9, median(raw.latencies[i : i + size]) / 1e6) for i in groups]
        lines.append(svg.Series(label, points))
    return svg.line_chart(
        lines, title="latency over time", x_label="seconds since the run began", y_text="{:g} ms".format, dots=False
    )


def _stages(results: Sequence[Result], names: Sequence[str]) -> str:
    told = dict.fromkeys(stage for result in results for stage in result.stages)
    stages = sorted(told, key=lambda stage: STAGES.index(stage) if stage in STAGES else len(STAGES))
    means = [[r.stages[stage].mean_ms if stage in r.stages else 0.0 for stage in stages] for r in results]
    return svg.stacked_rows(names, stages, means, title="stages", text="{:.3g} ms".format)


def _heat(results: Sequence[Result]) -> str:
    """Models down, devices across; of several results of one cell the last counts."""
    found = {(name(result), result.subject.board): result.latency.at(90).ms for result in results}
    models, boards = (list(dict.fromkeys(key[axis] for key in found)) for axis in (0, 1))
    top = max(found.values()) or 1.0
    rows = []
    for model in models:
        cells = []
        for board in boards:
            value = found.get((model, board))
            shade = 0 if value is None else 10 + round(_SHADES * value / top) * 10
            style = f' style="background: color-mix(in srgb, var(--c1) {shade}%, transparent)"'
            cells.append(f"<td{style}>{_ms(value)}</td>")
        rows.append(f"<tr><td class=text>{escape(model)}</td>{''.join(cells)}</tr>")
    head = "".join(f"<th>{escape(board)}</th>" for board in boards)
    return f"<table><thead><tr><th class=text>model</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _table(results: Sequence[Result], names: Sequence[str]) -> str:
    columns = ("run", "provider that ran", "n", "p50", "p90", "p99", "p99 bound", "max", "CPU", "MB", "mJ", "samples/s")
    rows = []
    for label, result in zip(names, results, strict=True):
        latency = result.latency
        ran = ", ".join(f"{who} {share:.0%}" for who, share in result.subject.providers.items())
        texts = (label, ran)
        peak, energy = result.peak_mb, result.energy_mj_per_sample
        figures = (
            str(latency.count),
            *(_ms(latency.at(at).ms) for at in (50, 90, 99)),
            _ms(latency.at(99).bound_ms),
            _ms(latency.max_ms),
            _ms(result.cpu.mean_ms),
            "-" if peak is None else f"{peak:.0f}",
            "-" if energy is None else f"{energy:.3g}",
            f"{result.samples_per_s:.4g}",
        )
        cells = "".join(f"<td class=text>{escape(text)}</td>" for text in texts)
        rows.append(f"<tr>{cells}{''.join(f'<td>{figure}</td>' for figure in figures)}</tr>")
    kinds = ["<th class=text>", "<th class=text>", *["<th>"] * (len(columns) - 2)]
    head = "".join(f"{kind}{escape(column)}</th>" for kind, column in zip(kinds, columns, strict=True))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _card(title: str, what: str, body: str, *, wide: bool = False) -> str:
    kind = "card wide" if wide else "card"
    return f'<article class="{kind}"><h2>{escape(title)}</h2><p class="soft">{escape(what)}</p>{body}</article>'
