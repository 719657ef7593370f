"""``bench report``: one HTML file of several results that needs nothing else. Owns no number and no chart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from devices.latency.result import STAGES, Result
from devices.latency.soak import Soak
from roadcast.bench import charts, show
from roadcast.demo import svg

_SHADES = 5
_NOT_MEASURED = '<p class="empty">not measured</p>'


def page(found: Sequence[Result | Soak]) -> str:
    """The whole page as HTML, of at least one run or soak."""
    results = [one for one in found if isinstance(one, Result)]
    soaks = [one for one in found if isinstance(one, Soak)]
    cards = "\n".join([*(_cards(results) if results else ()), *_soak_cards(soaks)])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Roadcast latency</title>
<style>
{charts.css()}</style>
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


def name(result: Result) -> str:
    """A result for people, in a few words."""
    return f"{result.subject.model}, {result.subject.precision}, {result.scenario}"


def _cards(results: Sequence[Result]) -> Iterator[str]:
    several = len(results) > 1
    keys = [f"#{number}" if several else "" for number in range(1, len(results) + 1)]
    names = [f"{key} {name(result)}".lstrip() for key, result in zip(keys, results, strict=True)]
    legend = svg.legend(names) if several else ""
    yield _card("Results", "milliseconds per query", _table(results, names), wide=True)
    yield _card("Conditions", "what the board and its clocks were like", _conditions(results, names), wide=True)
    remarks = [
        f"<li>{escape(n)}: {escape(text)}</li>" for n, r in zip(names, results, strict=True) for text in r.remarks
    ]
    if remarks:
        yield _card("To be taken with care", "what the runs remarked upon", f"<ul>{''.join(remarks)}</ul>", wide=True)
    steady = "latency, median of neighbouring queries; a slow beginning is left out"
    yield _card("Distribution", "share of queries answered within a time", charts.distribution(results, keys) + legend)
    yield _card("Timeline", steady, charts.latency_over_time(results, keys) + legend)
    heat, clocks = charts.heat_over_time(results, keys), charts.clocks_over_time(results, keys)
    yield _card("Temperature", "hottest zone", _watched(heat, legend, results, keys, "celsius"))
    clocked = _watched(clocks, legend, results, keys, "clock_mhz", "gpu_mhz")
    yield _card("Clocks", "mean of the cores, and of a Jetson its GPU's", clocked)
    bars = f'<div style="max-width: 560px">{charts.stages(results, keys)}</div>'
    table = _stage_table(results, keys if several else names)
    yield _card("Stages", "mean of each step of a query; below, milliseconds", bars + table, wide=True)
    yield _card("Model by device", "p90 in milliseconds; darker is slower", _heat(results), wide=True)


def _watched(chart: str, legend: str, results: Sequence[Result], keys: Sequence[str], *fields: str) -> str:
    """A chart of what was watched, and of whom nothing was."""
    if not chart:
        return _NOT_MEASURED
    unseen = [
        key
        for key, result in zip(keys, results, strict=True)
        if all(getattr(moment, field) is None for moment in result.moments for field in fields)
    ]
    said = f'<p class="empty">not measured: {", ".join(unseen)}</p>' if unseen else ""
    return chart + legend + said


def _soak_cards(soaks: Sequence[Soak]) -> Iterator[str]:
    for found in soaks:
        subject, length_s = found.subject, found.windows[-1].at_s
        title = f"Soak: {subject.model}, {subject.precision}, on {subject.board}"
        verdict = "; ".join(found.findings) or "the board keeps this load up"
        mode = found.power_mode or "not measured"
        state = f"{length_s:.0f} s; power mode: {mode}; clocks {show.pinned(found.pinned)}; {verdict}"
        drawn = "".join(
            f"<div><h3>{escape(what)}</h3>{chart or _NOT_MEASURED}</div>" for what, chart in charts.soaked(found)
        )
        yield _card(title, state, f'<div class="cards">{drawn}</div>', wide=True)


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
        latency, peak, energy = result.latency, result.peak_mb, result.energy_mj_per_sample
        rows.append(
            (
                label,
                ", ".join(f"{who} {share:.0%}" for who, share in result.subject.providers.items()),
                str(latency.count),
                *(_ms(latency.at(at).ms) for at in (50, 90, 99)),
                _ms(latency.at(99).bound_ms),
                _ms(latency.max_ms),
                _ms(result.cpu.mean_ms),
                "-" if peak is None else f"{peak:.0f}",
                "-" if energy is None else f"{energy:.3g}",
                f"{result.samples_per_s:.4g}",
            )
        )
    return _rows(columns, rows, texts=2)


def _conditions(results: Sequence[Result], names: Sequence[str]) -> str:
    columns = ("run", "board", "software", "clocks", "power mode", "hottest zone", "throttled", "power")
    rows = []
    for label, result in zip(names, results, strict=True):
        subject, clocks = result.subject, result.sensed.clock_mhz
        mhz = "not measured" if clocks is None else f"{clocks[0]:.0f} to {clocks[1]:.0f} MHz"
        drawn = "; ".join(show.power(result.draw).values()) or "not measured"
        rows.append(
            (
                label,
                f"{subject.board}, cores: {subject.cores}, threads: {subject.threads}",
                subject.software,
                f"{mhz}; {show.pinned(result.sensed.pinned)}",
                *show.board(result).values(),
                drawn,
            )
        )
    return _rows(columns, rows, texts=len(columns))


def _stage_table(results: Sequence[Result], names: Sequence[str]) -> str:
    """Every stage of every run: its times, or why it has none."""
    rows = []
    for label, result in zip(names, results, strict=True):
        times = {**result.stages, **result.beside}
        order = dict.fromkeys((*(stage for stage in times if stage not in STAGES), *STAGES))
        for stage in order:
            found, beside = times.get(stage), " (not added to the latency)" if stage in result.beside else ""
            note = result.unmeasured.get(stage, "") if found is None else result.notes.get(stage, "")
            figures = ("not measured", "") if found is None else (_ms(found.at(50).ms), _ms(found.at(99).ms))
            rows.append((label, stage + beside, note, *figures))
    return _rows(("run", "stage", "", "p50", "p99"), rows, texts=3)


def _rows(columns: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int) -> str:
    """A table whose first columns are texts, and the others figures."""

    def cells(kind: str, row: Sequence[str]) -> str:
        marks = [" class=text" if at < texts else "" for at in range(len(row))]
        return "".join(f"<{kind}{mark}>{escape(cell)}</{kind}>" for mark, cell in zip(marks, row, strict=True))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{cells('th', columns)}</tr></thead><tbody>{body}</tbody></table>"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _card(title: str, what: str, body: str, *, wide: bool = False) -> str:
    kind = "card wide" if wide else "card"
    return f'<article class="{kind}"><h2>{escape(title)}</h2><p class="soft">{escape(what)}</p>{body}</article>'
