"""Sensors: rows of readings become forecasts, and later the truth about earlier ones."""

from __future__ import annotations

import numpy as np
import pytest

from devices.runners.base import Answer
from devices.sources import Frame
from edge_client.drift import Observation
from edge_client.inference import Feed, Inference
from edge_client.pipelines import Bundle, Series
from edge_client.results import Tally
from edge_client.seen import Seen
from edge_models.habits import Habits, places_of, sensor_numbers
from edge_models.head_weights import HeadWeights
from edge_models.scales import Scale
from edge_models.tasks import load_task
from edge_models.windows import LiveWindows, cut_with_ends
from edge_protocol.messages import IntervalResult
from tests.edge_client.test_inference import Constant, Frames
from tests.edge_models.test_habits import days
from tests.fakes.waiting import wait_for

SPEED = load_task("speed")


def sensors(out: list[IntervalResult], scale: Scale | None) -> tuple[Inference, Feed, Seen]:
    """Two speed sensors."""
    seen = Seen(0.0)
    tally = Tally(task="speed", source="road", interval_s=300, slot_s=300, emit=out.append)
    windows = LiveWindows(SPEED, 2, scale, sensor_numbers(("a", "b")))
    feed = Feed("road", lambda: Frames([]), Series(SPEED, windows, ("a", "b"), tally, seen, "road"), tally)  # type: ignore[arg-type, return-value]
    return Inference([feed], 8), feed, seen


def row(number: int, *values: float) -> Frame:
    """A row of readings."""
    return Frame(sample=f"r-{number}", at_s=300.0 * number, readings=np.float32(values))


def test_forecasts_are_in_the_sensors_own_unit_and_silent_sensors_have_none() -> None:
    """A student that says +0 at every horizon forecasts the last reading; a sensor without readings is absent."""
    out: list[IntervalResult] = []
    inference, feed, seen = sensors(out, Scale(np.array([50.0, 40.0]), np.array([10.0, 5.0])))

    class Steady(Constant):
        def infer(self, x: np.ndarray) -> Answer:
            return Answer(np.ones((len(x), 64), np.float32), np.zeros((len(x), 6), np.float32))

    inference.swap(Bundle(1, Steady()))
    for number in range(30):
        inference.take(feed, row(number, 60.0 + number, np.nan), 0.0)
    inference.take(feed, None, 0.0)
    last = out[-1]
    assert last.values == pytest.approx({f"a/+{h}min": 89.0 for h in (15, 30, 60)}, abs=0.01)
    matured = seen.drain()
    assert len(matured) == 30 - max(SPEED.horizons) - 1
    assert all(np.asarray(kept.target).shape == (3,) for kept in matured)
    assert len(seen.latest(5)) == 5
    told = seen.doubts.drain()
    assert {each.condition for each in told} == {"road"}
    errors = np.mean(np.array(SPEED.horizons) / 10)
    assert told[-1].doubt == pytest.approx(errors, rel=1e-4), "a mile more in each interval, in spreads of 10"


def test_a_live_window_is_answered_as_the_same_window_of_the_history() -> None:
    """A head with habits sees in a row just read, and in what has matured, what it saw of them while it was fitted."""
    values, times = days(1)
    scale, numbers, rng = Scale.fit(values), sensor_numbers(("a", "b")), np.random.default_rng(0)
    habits = Habits(rng.normal(50, 9, (3, 288, 2)).astype(np.float32), np.sort(numbers[:, 0]))
    weight = np.hstack([np.zeros((6, 64)), rng.normal(0, 1, (6, 5))]).astype(np.float32)
    head = HeadWeights(weight, np.zeros(6, np.float32), habits=habits)
    cut, ends = cut_with_ends(values, times, SPEED, scale, side=numbers)
    said = head.answer(np.zeros((len(cut), 64), np.float32), cut)
    out, doubts = list[IntervalResult](), list[Observation]()
    inference, feed, seen = sensors(out, scale)
    inference.swap(Bundle(1, Constant(), head))
    for at_s, row in zip(times, values, strict=True):
        inference.take(feed, Frame(sample="r", at_s=float(at_s), readings=row.astype(np.float32)), 0.0)
        doubts = seen.doubts.drain() or doubts
    inference.take(feed, None, 0.0)
    now, where = np.flatnonzero(ends == times[-1]), places_of(cut, habits.numbers)
    told = where.last[now, None] + where.spread[now, None] * said[now, :3]
    keys = [[f"{sensor}/+{minutes}min" for minutes in (15, 30, 60)] for sensor in ("a", "b")]
    np.testing.assert_allclose([[out[-1].values[key] for key in row] for row in keys], told, atol=1e-2)
    kept = seen.drain()
    assert {float(np.asarray(each.side)[0]) for each in kept} == set(habits.numbers.tolist())
    last = [each for each in kept if each.at_s == kept[-1].at_s]
    chosen = np.flatnonzero(ends == last[0].at_s)
    np.testing.assert_allclose([each.raw for each in last], cut.raw[chosen], atol=1e-5)
    told_of = np.flatnonzero(ends == last[0].at_s - 300)
    shared = Constant().infer(cut.raw[told_of]).logits
    errors = np.abs(shared[:, :3] - cut.targets[told_of].astype(np.float32))
    assert doubts[-1].doubt == pytest.approx(float(np.nanmean(errors)), rel=1e-3)


def test_a_row_without_any_reading_is_missing_but_time_goes_on() -> None:
    """It is not answered, and the windows move on."""
    out: list[IntervalResult] = []
    inference, feed, _ = sensors(out, Scale(np.array([50.0, 40.0]), np.array([10.0, 5.0])))
    inference.swap(Bundle(1, Constant()))
    for number in range(5):
        inference.take(feed, row(number, 50.0, 40.0), 0.0)
    for number in range(5, 20):
        inference.take(feed, row(number, np.nan, np.nan), 0.0)
    assert (inference.counters.missing, inference.counters.answered) == (15, 5)
    inference.take(feed, row(20, np.inf, np.nan), 0.0)
    assert inference.counters.missing == 16


def test_a_sensor_without_a_history_waits_until_it_has_a_scale() -> None:
    """It is answered once it was measured as often as a window is long."""
    inference, feed, seen = sensors([], None)
    inference.swap(Bundle(1, Constant()))
    for number in range(SPEED.input.steps + 3):  # type: ignore[union-attr]
        inference.take(feed, row(number, 50.0 + number % 3, 40.0 - number % 2), 0.0)
    assert 0 < inference.counters.answered < inference.counters.frames
    inference.take(feed, row(0, 1.0), 0.0)
    assert inference.counters.failed == 1, "another number of sensors"
    assert seen.total == inference.counters.answered


def test_an_answer_that_is_not_finite_is_left_out() -> None:
    """A forecast of NaN is no forecast."""
    out: list[IntervalResult] = []
    inference, feed, _ = sensors(out, Scale(np.array([50.0, 40.0]), np.array([10.0, 5.0])))

    class Broken(Constant):
        def infer(self, x: np.ndarray) -> Answer:
            return Answer(np.ones((len(x), 64), np.float32), np.full((len(x), 6), np.nan, np.float32))

    inference.swap(Bundle(1, Broken()))
    inference.take(feed, row(1, 50.0, 40.0), 0.0)
    inference.take(feed, None, 0.0)
    assert out[-1].values == {}


def test_no_row_gives_way_when_a_file_is_read_at_once() -> None:
    """A logger's history comes faster than it is answered: the reader waits, and the windows have no holes."""
    out: list[IntervalResult] = []
    inference, feed, _ = sensors(out, None)
    feed.opener = lambda: Frames([row(number, 60.0, 50.0) for number in range(300)])  # type: ignore[assignment, return-value]
    inference.swap(Bundle(1, Constant(outputs=6)))
    inference.start()
    wait_for(lambda: inference.ended, "end of the file")
    inference.stop()
    assert (inference.counters.taken, inference.counters.queue_dropped) == (300, 0)
