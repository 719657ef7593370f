"""What a person sees while the demo runs."""

from __future__ import annotations

import io

from rich.console import Console

from edge_protocol import messages as m
from roadcast.demo.live import Lines, Screen, amount, display_for, fleet_table, own_score
from roadcast.demo.observer import DeviceView, Observer
from tests.fakes import fleet_talk as talk


def _console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=140, force_terminal=terminal, color_system=None), text


def _fleet() -> Observer:
    observer = Observer(talk.FLEET)
    spoken = [
        talk.up("cam-1", m.Presence(online=True)),
        talk.birth("cam-1"),
        talk.release(1),
        talk.call(1),
        talk.up("cam-1", m.Deployment("vehicle", 1, "committed", 1, "")),
        talk.state("cam-1", 1, (2048, 5 << 20), latency_p50_ms=1.25, latency_p95_ms=9.0, personal_accuracy=0.875),
        talk.up("cam-2", m.Deployment("vehicle", 2, "rolled-back", 1, "", "p95 too high")),
        talk.up("cam-3", m.Deployment("vehicle", 1, "fetching", 0, "")),
    ]
    for topic, payload in spoken:
        observer.take(topic, payload, 1.0)
    return observer


def test_the_table_shows_each_device() -> None:
    """Device, tier, student, state, release, own accuracy, latency and bytes stand in its line; rounds in the title."""
    console, text = _console(terminal=True)
    console.print(fleet_table(_fleet(), 12.4, "waiting"))
    drawn = text.getvalue()
    line = next(line for line in drawn.splitlines() if "cam-1" in line)
    assert line.split() == [
        "cam-1",
        "nano",
        "depthwise",
        "idle",
        "1",
        "87.5",
        "%",
        "1.2",
        "9.0",
        "2",
        "KiB",
        "5.0",
        "MiB",
    ]
    assert "vehicle: release 1, round 1 takes reports" in drawn
    assert "offline" in next(line for line in drawn.splitlines() if "cam-2" in line)
    assert "waiting" in drawn


def test_a_terminal_gets_a_table_and_a_pipe_gets_lines() -> None:
    """The display fits where it is shown."""
    assert isinstance(display_for(_console(terminal=True)[0]), Screen)
    assert isinstance(display_for(_console(terminal=False)[0]), Lines)


def test_lines_tell_each_change_once() -> None:
    """A log gets what ended, with its reason, and says it once."""
    console, text = _console(terminal=False)
    with Lines(console) as lines:
        lines.say("starting")
        lines.show(_fleet(), 3.0)
        lines.show(_fleet(), 4.0)
    assert text.getvalue().splitlines() == [
        "starting",
        "    3 s  vehicle: release 1, round 1 takes reports",
        "    3 s  cam-1: runs release 1",
        "    3 s  cam-2: runs release 1, newer one rolled-back: p95 too high",
    ]


def test_the_screen_draws_the_fleet() -> None:
    """A live table starts, is drawn anew, and leaves the terminal as it was."""
    console, text = _console(terminal=True)
    with Screen(console) as screen:
        screen.say("first releases")
        screen.show(_fleet(), 3.0)
    assert "first releases" in text.getvalue()
    assert "cam-1" in text.getvalue()
    assert "Ctrl-C ends every process" in text.getvalue()


def test_scores_and_amounts_are_for_people() -> None:
    """Shares in per cent, errors as they are, nothing measured as a dash; bytes in binary units."""
    assert own_score(DeviceView("x", values={"personal_mae": 3.456})) == "mae 3.46"
    assert own_score(DeviceView("x", values={"shared_accuracy": 0.5})) == "-"
    assert [amount(n) for n in (0, 1023, 2048, 3 << 20)] == ["0 B", "1023 B", "2 KiB", "3.0 MiB"]
