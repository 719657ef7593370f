"""What came of a demo, as tables: for the terminal and, as rows, for the report. Owns no number."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

from roadcast.demo.live import amount
from roadcast.demo.outcome import ClipFacts, DeviceScore, Outcome, TaskFacts, mean_by_release
from roadcast.output import table

if TYPE_CHECKING:
    from rich.console import RenderableType

Row = tuple[str, ...]


class Section(NamedTuple):
    """One table; the first `texts` columns are text, the others are numbers; a narrow one fits beside another."""

    title: str
    columns: Row
    rows: list[Row]
    texts: int = 1
    narrow: bool = False


def sections(outcome: Outcome) -> list[Section]:
    """Every table of the summary."""
    tasks = {task.task: task for task in outcome.tasks}
    return [
        _rounds(outcome),
        *(_releases(outcome, task) for task in outcome.tasks),
        Section(
            "Each device on its own held-out share",
            ("device", "task", "tier", "what it sees", "shared, first", "own, first", "shared, last", "own, last"),
            [_device(score, tasks[score.task]) for score in outcome.devices],
            texts=4,
        ),
        _bytes(outcome),
        _kinds(outcome),
        _serving(outcome),
        *_clip(outcome),
    ]


def summary(outcome: Outcome) -> RenderableType:
    """The whole summary: drawn for a terminal, lines for a pipe."""
    verdict = verdict_line(outcome)
    drawn = [table(s.title, s.columns, s.rows) for s in sections(outcome)]
    if not sys.stdout.isatty():
        return "\n\n".join([*map(str, drawn), verdict])
    from rich.console import Group

    return Group(*drawn, verdict)


def verdict_line(outcome: Outcome) -> str:
    """One line: did the loop learn, and how long did it take."""
    if not outcome.ok:
        return f"not good: {'; '.join(outcome.reasons)}"
    gains = "; ".join(_gain(outcome, task) for task in outcome.tasks)
    return f"good: {gains}; every device runs the last release ({outcome.seconds + outcome.evaluation_s:.0f} s)"


def score_text(value: float | None, task: TaskFacts) -> str:
    """A headline score for people: a share in per cent, an error in its unit."""
    if value is None:
        return "-"
    return f"{value:.2f} {task.unit}" if task.unit else f"{100 * value:.1f} %"


def skipped_frames(outcome: Outcome) -> int:
    """Frames that the whole fleet skipped because of swaps."""
    return sum(device.swap_skipped for device in outcome.fleet)


def _gain(outcome: Outcome, task: TaskFacts) -> str:
    means = mean_by_release(outcome.releases, task)
    first, last = (score_text(means[at], task) for at in (min(means), max(means)))
    return f"{task.task} {task.headline} {first} → {last} over {max(means)} releases"


def clip_text(clip: ClipFacts) -> str:
    """What to know about the counts: who counted, how much was seen, and what the truth is."""
    truth = f"; it shows {clip.truth}" if clip.truth else ""
    return f"{clip.device}, {100 * clip.coverage:.0f} % of the clip seen{truth}"


def _rounds(outcome: Outcome) -> Section:
    longest = max((len(task.rounds) for task in outcome.tasks), default=0)
    rows = [
        (str(number) if number else "first release", *(_at(task.rounds, number) for task in outcome.tasks))
        for number in range(longest)
    ]
    return Section(
        "What came of each round", ("round", *(task.task for task in outcome.tasks)), rows, texts=3, narrow=True
    )


def _at(rounds: list[str], number: int) -> str:
    return rounds[number] if number < len(rounds) else "-"


def _releases(outcome: Outcome, task: TaskFacts) -> Section:
    scores = [score for score in outcome.releases if score.task == task.task]
    tiers = list(dict.fromkeys(score.tier for score in scores))
    names = {score.tier: f"{score.tier} ({score.student})" for score in scores}
    found = {(score.release, score.tier): score.scores[task.headline] for score in scores}
    means = mean_by_release(scores, task)
    rows = [
        (str(release), *(score_text(found.get((release, tier)), task) for tier in tiers), score_text(mean, task))
        for release, mean in means.items()
    ]
    still = scores[0].scores.get("mae_persistence") if scores else None
    if still is not None:
        rows.append(("no change", *(score_text(still, task) for _ in tiers), score_text(still, task)))
    return Section(
        f"{task.title}: {task.headline} on held-out data by release",
        ("release", *(names[tier] for tier in tiers), "mean"),
        rows,
    )


def _device(score: DeviceScore, task: TaskFacts) -> Row:
    numbers = (score.before_shared, score.before_own, score.after_shared, score.after_own)
    return (
        score.device,
        score.task,
        score.tier,
        score.conditions.replace("_", " "),
        *(score_text(number, task) for number in numbers),
    )


def _bytes(outcome: Outcome) -> Section:
    rounds = range(outcome.rounds + 1)
    rows: list[Row] = []
    for device in outcome.fleet:
        spent = (device.bytes_by_round.get(number) for number in rounds)
        cells = ("-" if pair is None else f"{amount(pair[0])} / {amount(pair[1])}" for pair in spent)
        rows.append((device.device, *cells, f"{amount(device.bytes_up)} / {amount(device.bytes_down)}"))
    names = ("first release", *(f"round {number}" for number in rounds if number))
    return Section("Bytes over MQTT, up / down", ("device", *names, "all"), rows)


def _kinds(outcome: Outcome) -> Section:
    kinds = sorted({kind for device in outcome.fleet for kind in device.bytes_by_kind})
    rows: list[Row] = [
        (
            device.device,
            *(amount(device.bytes_by_kind[kind]) if kind in device.bytes_by_kind else "-" for kind in kinds),
            "-" if device.raw_bytes is None else amount(device.raw_bytes),
        )
        for device in outcome.fleet
    ]
    return Section("What left each device, by kind of message", ("device", *kinds, "raw samples"), rows)


def _serving(outcome: Outcome) -> Section:
    rows: list[Row] = [
        (
            device.device,
            f"{device.tier} ({device.student})",
            str(device.release),
            _milliseconds(device.latency_p50_ms),
            _milliseconds(device.latency_p95_ms),
            str(device.frames),
            str(device.queue_dropped),
            str(device.swap_skipped),
        )
        for device in outcome.fleet
    ]
    columns = ("device", "tier", "release", "p50 ms", "p95 ms", "frames", "dropped", "skipped by swaps")
    return Section("Serving while learning", columns, rows, texts=2)


def _clip(outcome: Outcome) -> list[Section]:
    if outcome.clip is None:
        return []
    rows: list[Row] = []
    for key, count in sorted(outcome.clip.counts.items()):
        line, direction, label = key.split("/")
        rows.append((line, direction, label, f"{count:.0f}"))
    return [
        Section(
            f"Counted on the video clip: {clip_text(outcome.clip)}",
            ("line", "direction", "class", "vehicles"),
            rows,
            texts=3,
        )
    ]


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
