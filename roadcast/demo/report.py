"""``demo-report.html``: one file with everything in it, no request to anywhere. Owns the page, no number."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from importlib.resources import files
from pathlib import Path

from edge_protocol.errors import StoreError
from roadcast.demo import svg
from roadcast.demo.live import amount
from roadcast.demo.outcome import ClipFacts, DeviceScore, Outcome, TaskFacts, mean_by_release
from roadcast.demo.summary import Section, clip_text, score_text, sections, skipped_frames, verdict_line

_COLUMNS = (
    ("shared head, first release", "before_shared", "c0 past"),
    ("shared head, last release", "after_shared", "c0"),
    ("own head, first release", "before_own", "c1 past"),
    ("own head, last release", "after_own", "c1"),
)


def write_report(path: Path, outcome: Outcome) -> None:
    """Write the page.

    Raises:
        StoreError: the disk refuses.
    """
    try:
        path.write_text(page(outcome), encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}; give another --report") from error


def page(outcome: Outcome) -> str:
    """The whole page as HTML."""
    css = files("roadcast.demo").joinpath("report.css").read_text(encoding="utf-8")
    cards = "\n".join([*_charts(outcome), *(_table(section) for section in sections(outcome))])
    parts = ", ".join(f"{escape(name)} {escape(version)}" for name, version in outcome.parts.items() if version)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Roadcast demo</title>
<style>
{css}</style>
</head>
<body>
<main>
<h1>Roadcast demo</h1>
<p class="soft">Data: {escape(outcome.data)}</p>
<p class="verdict {"good" if outcome.ok else "bad"}">{escape(verdict_line(outcome))}</p>
<section class="tiles">{"".join(_tiles(outcome))}</section>
<section class="cards">
{cards}
</section>
<footer>Measured after the fleet had stopped, with the runner that devices use. {parts}</footer>
</main>
</body>
</html>
"""


def _tiles(outcome: Outcome) -> Iterator[str]:
    for task in outcome.tasks:
        means = mean_by_release(outcome.releases, task)
        if means:
            first, last = (score_text(means[at], task) for at in (min(means), max(means)))
            yield _tile(f"{first} → {last}", f"{task.task}: {task.headline}, release {min(means)} to {max(means)}")
    up, down = (sum(getattr(device, way) for device in outcome.fleet) for way in ("bytes_up", "bytes_down"))
    yield _tile(str(len(outcome.fleet)), f"devices, {outcome.rounds} rounds a task")
    yield _tile(f"{amount(up)} / {amount(down)}", "up / down over MQTT, all devices")
    yield _tile(str(skipped_frames(outcome)), f"of {sum(d.frames for d in outcome.fleet)} frames skipped by swaps")
    yield _tile(f"{outcome.seconds + outcome.evaluation_s:.0f} s", f"of it {outcome.evaluation_s:.0f} s to measure")


def _tile(figure: str, what: str) -> str:
    return f'<div class="tile"><b>{escape(figure)}</b><span>{escape(what)}</span></div>'


def _charts(outcome: Outcome) -> Iterator[str]:
    for task in outcome.tasks:
        yield _card(
            f"{task.task}: shared model by release",
            f"{_measure(task)}, on data that neither the server nor a device has seen",
            _by_release(outcome, task),
        )
    for task in outcome.tasks:
        yield _card(
            f"{task.task}: devices before and after",
            f"{_measure(task)}, on each device's own held-out share",
            _before_after([score for score in outcome.devices if score.task == task.task], task),
        )
    for task in outcome.tasks:
        yield _card(f"{task.task}: bytes by round", "up and down over MQTT, payload and topic", _bytes(outcome, task))
    for task in outcome.tasks:
        yield _card(
            f"{task.task}: latency while the fleet trains",
            "p95 from frame to answer; all devices share the cores of this machine",
            _latency(outcome, task),
        )
    if outcome.clip is not None:
        yield _card("Counted on the video clip", clip_text(outcome.clip), _counts(outcome.clip))


def _measure(task: TaskFacts) -> str:
    better = "higher" if task.higher_is_better else "lower"
    return f"{task.headline} in {task.unit or 'per cent'}, {better} is better"


def _tick_text(task: TaskFacts) -> svg.Text:
    return "{:.1f}".format if task.unit else (lambda value: f"{100 * value:.0f} %")


def _counts(clip: ClipFacts) -> str:
    keys = sorted(clip.counts)
    return svg.stacked_rows(
        [key.partition("/")[2].replace("/", " ") for key in keys],
        ["vehicles"],
        [[clip.counts[key]] for key in keys],
        title="counts",
        text="{:.0f}".format,
    )


def _by_release(outcome: Outcome, task: TaskFacts) -> str:
    scores = [score for score in outcome.releases if score.task == task.task]
    students = dict.fromkeys((score.tier, score.student) for score in scores)
    lines = [
        svg.Series(student, [(s.release, s.scores[task.headline]) for s in scores if s.tier == tier])
        for tier, student in students
    ]
    still = scores[0].scores.get("mae_persistence") if scores else None
    if still is not None:
        lines.append(svg.Series("no change", [(release, still) for release in sorted({s.release for s in scores})]))
    return svg.line_chart(
        lines,
        title=f"{task.headline} by release",
        x_label="release",
        y_text=_tick_text(task),
        x_ticks=sorted({score.release for score in scores}) or None,
    )


def _before_after(scores: list[DeviceScore], task: TaskFacts) -> str:
    return svg.column_chart(
        [f"{score.device} ({score.tier})" for score in scores],
        [svg.Column(name, [getattr(s, field) for s in scores], colour) for name, field, colour in _COLUMNS],
        title="before and after",
        y_text=_tick_text(task),
    )


def _bytes(outcome: Outcome, task: TaskFacts) -> str:
    devices = [device for device in outcome.fleet if device.task == task.task]
    rounds = range(outcome.rounds + 1)
    return svg.stacked_rows(
        [device.device for device in devices],
        ["first release", *(f"round {number}" for number in rounds if number)],
        [[float(sum(device.bytes_by_round.get(number, (0, 0)))) for number in rounds] for device in devices],
        title="bytes by round",
        text=lambda value: amount(int(value)),
    )


def _latency(outcome: Outcome, task: TaskFacts) -> str:
    devices = [device for device in outcome.fleet if device.task == task.task and device.latency]
    return svg.line_chart(
        [svg.Series(device.device, [(at_s, p95) for at_s, _, p95 in device.latency]) for device in devices],
        title="p95 latency",
        x_label="seconds since the devices started",
        y_text="{:g} ms".format,
        dots=False,
    )


def _card(title: str, what: str, body: str) -> str:
    return f'<article class="card"><h2>{escape(title)}</h2><p class="soft">{escape(what)}</p>{body}</article>'


def _table(section: Section) -> str:
    def row(cells: tuple[str, ...], tag: str) -> str:
        marked = (
            f"<{tag}{' class=text' if at < section.texts else ''}>{escape(cell)}</{tag}>"
            for at, cell in enumerate(cells)
        )
        return f"<tr>{''.join(marked)}</tr>"

    body = "".join(row(cells, "td") for cells in section.rows)
    head = row(section.columns, "th")
    return (
        f'<article class="card{"" if section.narrow else " wide"}"><h2>{escape(section.title)}</h2>'
        f"<table><thead>{head}</thead><tbody>{body}</tbody></table></article>"
    )
