"""Interval results: missing is missing, never zero, in the frames' own time."""

from __future__ import annotations

import pytest

from edge_client.results import Tally
from edge_protocol.messages import IntervalResult


def tally(out: list[IntervalResult], interval_s: float = 60, slot_s: float | None = None) -> Tally:
    """A tally of a camera."""
    return Tally(task="vehicle", source="main", interval_s=interval_s, slot_s=slot_s, emit=out.append)


def test_an_interval_closes_with_the_first_frame_of_the_next() -> None:
    """Intervals end at multiples of their length; the first begins with the first frame."""
    out: list[IntervalResult] = []
    counts = tally(out)
    for at in range(90, 245):
        counts.see(float(at), float(at))
        counts.count("car")
    assert [(r.start_s, r.end_s, r.coverage, r.values) for r in out] == [
        (90, 120, 1.0, {"car": 30}),
        (120, 180, 1.0, {"car": 60}),
        (180, 240, 1.0, {"car": 60}),
    ]


def test_what_was_not_counted_is_absent_and_what_was_not_seen_is_not_covered() -> None:
    """A silent camera gives intervals with coverage below 1 and without keys."""
    out: list[IntervalResult] = []
    counts = tally(out)
    for at in range(60, 90):
        counts.see(float(at), float(at))
    counts.count("bike")
    for wall in range(90, 242):
        counts.tick(float(wall))
    assert [(r.end_s, r.coverage, r.values) for r in out] == [(120, 0.5, {"bike": 1}), (180, 0, {}), (240, 0, {})]


def test_a_replay_of_the_past_is_not_closed_by_the_wall_clock() -> None:
    """A clip of last year, played fast, gives its own intervals only."""
    out: list[IntervalResult] = []
    counts = tally(out)
    for at in range(130):
        counts.see(float(at), 1.7e9 + at / 100)
    counts.tick(1.7e9 + 1e6)
    assert [(r.start_s, r.end_s) for r in out] == [(0, 60), (60, 120)]
    counts.finish()
    counts.finish()
    assert (out[-1].start_s, out[-1].end_s) == (120, 130)
    assert len(out) == 3


def test_what_was_told_before_is_not_told_again() -> None:
    """Intervals up to the mark are counted and kept to oneself."""
    out: list[IntervalResult] = []
    tally = Tally(task="speed", source="road", interval_s=60, slot_s=60, emit=out.append, told_s=120)
    for at_s in (0.0, 60.0, 120.0, 180.0, 240.0):
        tally.see(at_s, 1e9)
    assert [(each.start_s, each.end_s) for each in out] == [(120, 180), (180, 240)]


def test_a_long_gap_is_skipped_not_filled() -> None:
    """A month without frames does not give forty thousand empty results."""
    out: list[IntervalResult] = []
    counts = tally(out)
    counts.see(30.0, 30.0)
    counts.see(30.0 * 86400, 30.0 * 86400)
    assert len(out) == 1
    counts.finish()
    assert out[-1].start_s == pytest.approx(30 * 86400)


def test_a_source_that_never_delivered_gives_nothing() -> None:
    """No frame, no interval."""
    out: list[IntervalResult] = []
    counts = tally(out)
    counts.tick(1e9)
    counts.finish()
    assert out == []


def test_a_row_of_a_sensor_covers_its_own_interval() -> None:
    """With one reading per interval, each result is whole; a missing row gives none of its own."""
    out: list[IntervalResult] = []
    counts = tally(out, 300, 300)
    for row in (0, 1, 3):
        counts.see(300.0 * row, 1.7e9)
        counts.count("loop/+15min", 50.0)
    counts.finish()
    assert [(r.start_s, r.end_s, r.coverage) for r in out] == [
        (0, 300, 1),
        (300, 600, 1),
        (600, 900, 0),
        (900, 1200, 1),
    ]
