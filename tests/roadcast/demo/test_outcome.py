"""The verdict, the summary and the report say what happened, and only that."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from edge_protocol import messages as m
from edge_protocol.errors import StoreError
from roadcast.demo.observer import Observer
from roadcast.demo.outcome import Outcome, clip_facts, device_facts, reasons_against
from roadcast.demo.report import page, write_report
from roadcast.demo.summary import summary, verdict_line
from tests.fakes import demo_outcome as fake
from tests.fakes import fleet_talk as talk


def _reasons(outcome: Outcome) -> list[str]:
    return reasons_against(outcome.tasks, outcome.releases, outcome.fleet, fake.MEMBERS)


def _with(**changes: object) -> Outcome:
    return msgspec.structs.replace(fake.good(), **changes)


def test_a_good_demo_has_no_reason_against_it() -> None:
    """Last releases better on held-out data, all devices on them, no frame skipped."""
    assert _reasons(fake.good()) == []
    assert fake.good().ok


def test_a_worse_or_equal_last_release_fails() -> None:
    """Higher accuracy and lower error are better; standing still is not."""
    good = fake.good().releases
    speed = [score for score in good if score.task == "speed"]
    worse = _with(releases=[fake.release_score("vehicle", 1, 0.7), fake.release_score("vehicle", 2, 0.6), *speed])
    equal = _with(releases=[fake.release_score("vehicle", 1, 0.7), fake.release_score("vehicle", 2, 0.7), *speed])
    rising = _with(releases=[*good[:4], fake.release_score("speed", 1, 4.0), fake.release_score("speed", 2, 4.1)])
    assert _reasons(worse) == ["vehicle: release 2 has accuracy 0.600 on held-out data, release 1 had 0.700"]
    assert len(_reasons(equal)) == 1
    assert _reasons(rising) == ["speed: release 2 has mae 4.100 on held-out data, release 1 had 4.000"]


def test_a_task_without_a_second_release_fails_with_what_its_rounds_said() -> None:
    """When every round was abandoned the reason is the server's own."""
    tasks = [msgspec.structs.replace(fake.VEHICLE, rounds=["released", "abandoned: not better"]), fake.SPEED]
    only = _with(tasks=tasks, releases=[s for s in fake.good().releases if (s.task, s.release) != ("vehicle", 2)])
    none = _with(releases=[s for s in fake.good().releases if s.task == "speed"])
    assert _reasons(only)[0] == "vehicle: no release followed the first (released; abandoned: not better)"
    assert _reasons(none)[0] == "vehicle: no release was made"


def test_a_device_that_lags_or_skips_fails() -> None:
    """Each device must run the last release, must have been heard, and must not have skipped a frame."""
    lagging = fake.device_facts("cam-1", 1, deployment="rolled-back: too slow")
    assert _reasons(_with(fleet=[lagging, fake.device_facts("loop-1")])) == [
        "cam-1: runs release 1, not 2 (rolled-back: too slow)"
    ]
    assert _reasons(_with(fleet=[fake.device_facts("cam-1")])) == ["loop-1: was never heard of"]
    skipping = [fake.device_facts("cam-1", skipped=3), fake.device_facts("loop-1")]
    assert _reasons(_with(fleet=skipping)) == ["cam-1: skipped 3 frames while it swapped releases"]
    leaking = [msgspec.structs.replace(fake.device_facts("cam-1"), raw_bytes=32), fake.device_facts("loop-1")]
    assert _reasons(_with(fleet=leaking)) == [
        "cam-1: had 32 bytes of raw samples in what it was about to send; withheld"
    ]


def test_facts_are_taken_from_what_a_device_told() -> None:
    """Counts, latency, bytes by round and the clip's counts come from its messages; not measured stays not measured."""
    observer = Observer(talk.FLEET)
    spoken = [
        talk.birth("cam-1"),
        talk.state("cam-1", 1, (10, 20), latency_p50_ms=1.0, latency_p95_ms=2.0),
        talk.birth("cam-2"),
    ]
    for topic, payload in spoken:
        observer.take(topic, payload, 2.0)
    counts = {"bytes:state": 7, "bytes:knowledge": 3, "raw_bytes": 0}
    observer.take(*talk.up("cam-3", m.DeviceState("vehicle", "idle", 1, counts, {})), 2.0)
    counted = device_facts(observer.devices["cam-3"])
    assert (counted.bytes_by_kind, counted.raw_bytes) == ({"knowledge": 3, "state": 7}, 0)
    assert clip_facts(observer, "") is None
    observer.take(*talk.up("cam-1", m.IntervalResult("vehicle", "road", 0, 60, 0.5, {"a/forward/car": 3})), 3.0)
    told, silent = (device_facts(observer.devices[name]) for name in ("cam-1", "cam-2"))
    assert (told.frames, told.bytes_by_round, told.latency) == (10, {0: (10, 20)}, [(2.0, 1.0, 2.0)])
    assert (silent.frames, silent.latency_p95_ms, silent.raw_bytes) == (0, None, None)
    clip = clip_facts(observer, "3 cars")
    assert clip is not None
    assert (clip.device, clip.counts, clip.coverage, clip.truth) == ("cam-1", {"a/forward/car": 3}, 0.5, "3 cars")


def test_the_summary_in_a_pipe_is_lines() -> None:
    """Scores in per cent and units, bytes, skipped frames, counts, and the verdict at the end."""
    text = summary(fake.good())
    assert isinstance(text, str)
    lines = text.splitlines()
    assert "1\t50.0 %\t60.0 %\t55.0 %" in lines
    assert "no change\t5.00 mph\t5.00 mph" in lines
    assert "cam-1\tvehicle\tnano\tlow resolution\t50.0 %\t80.0 %\t60.0 %\t90.0 %" in lines
    assert "loop-1\tspeed\tnano\tits own road\t6.00 mph\t5.00 mph\t4.50 mph\t-" in lines
    assert "cam-1\t1000 B / 2.0 MiB\t2 KiB / 3.0 MiB\t3 KiB / 5.0 MiB" in lines
    assert "device\tknowledge\tstate\traw samples" in lines
    assert "cam-1\t700 B\t2 KiB\t0 B" in lines
    assert "a\tforward\tcar\t2" in lines
    assert lines[-1] == (
        "good: vehicle accuracy 55.0 % → 70.0 % over 2 releases; speed mae 6.00 mph → 4.50 mph over 2 releases; "
        "every device runs the last release (105 s)"
    )


def test_the_summary_on_a_terminal_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets tables with their titles, and a demo without a clip has no table of counts."""
    screen = StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", screen)
    Console(file=screen, width=160, color_system=None).print(summary(fake.good(clip=False)))
    assert "Serving while learning" in screen.getvalue()
    assert "video clip" not in screen.getvalue()
    assert "\t" not in screen.getvalue()


def test_a_failed_demo_says_why() -> None:
    """The verdict names the reasons."""
    assert verdict_line(fake.good(reasons=["cam-1: broken"])) == "not good: cam-1: broken"


class _Page(HTMLParser):
    """Collects what would fetch something, and whether tags close."""

    VOID = ("meta", "line", "polyline", "circle", "rect")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for name, value in attrs if name in {"src", "href", "data", "action"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.mark.parametrize("outcome", [fake.good(), fake.good(clip=False), fake.good(reasons=["a <b> & c"])])
def test_the_report_is_one_file_that_fetches_nothing(outcome: Outcome, tmp_path: Path) -> None:
    """No script, no request, every tag closed, every text escaped, light and dark."""
    write_report(tmp_path / "r.html", outcome)
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    seen = _Page(text)
    assert seen.fetched == []
    assert seen.open == []
    assert not re.search(r"<script|@import|url\(", text)
    assert "prefers-color-scheme: dark" in text
    assert "real &amp; &lt;good&gt;" in text
    assert "<forecast>" not in text


def test_the_report_shows_the_figures() -> None:
    """Each chart holds its points, with a text for people, and the verdict stands on top."""
    text = page(fake.good())
    assert "nano-net, 2: 70 %" in text
    assert "cam-1 (nano), own head, last release: 90 %" in text
    assert "cam-1, round 1: 3.0 MiB" in text
    assert 'class="verdict good"' in text
    assert text.count("<svg") == 9


def test_a_demo_that_made_nothing_still_gets_a_report() -> None:
    """No release, no device, no clip: the page says that nothing was measured."""
    empty = _with(releases=[], devices=[], fleet=[], clip=None, reasons=["vehicle: no release was made"])
    text = page(empty)
    assert "nothing was measured" in text
    assert 'class="verdict bad"' in text


def test_a_report_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    """The message names the path and the option."""
    with pytest.raises(StoreError, match="give another --report"):
        write_report(tmp_path / "missing" / "r.html", fake.good())
