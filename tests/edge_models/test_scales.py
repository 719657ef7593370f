"""What level and spread a sensor has, and what one absurd reading makes of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_models.scales import RunningScale, Scale


def readings(count: int, level: float = 60.0) -> npt.NDArray[np.float64]:
    """Readings (T, 1) that spread by 5 around a level."""
    return np.random.default_rng(0).normal(level, 5, (count, 1))


def pushed(running: RunningScale, values: npt.NDArray[np.float64]) -> Scale:
    """The scale after readings one by one."""
    for row in values:
        running.push(row)
    return running.scale


@given(st.lists(st.floats(-100, 100), max_size=48))
def test_a_running_scale_is_the_scale_of_all(drawn: list[float]) -> None:
    """Welford's running values are NumPy's mean and standard deviation, begun anew or with what was read before."""
    values = np.array([np.nan, -100.0, 100.0, *drawn])[:, None]
    fitted = Scale.fit(values)
    assert fitted.mean[0] == pytest.approx(np.nanmean(values), abs=1e-6)
    assert fitted.std[0] == pytest.approx(np.nanstd(values), abs=1e-6)
    assert pushed(RunningScale(1), values).pairs() == pytest.approx(fitted.pairs(), abs=1e-4)
    half = len(values) // 2 + 2
    begun = RunningScale(1, past=values[:half])
    assert pushed(begun, values[half:]).pairs() == pytest.approx(fitted.pairs(), abs=1e-4)


@pytest.mark.parametrize("level", [0.0, 50.0, -4000.0])
def test_a_stuck_sensor_has_a_thousandth_of_its_level_as_spread(level: float) -> None:
    """Its readings can be divided by it."""
    values = np.full((20, 1), level)
    floor = max(abs(level), 1) / 1000
    assert Scale.fit(values).std[0] == pushed(RunningScale(1), values).std[0] == floor


def test_a_sensor_without_readings_has_no_scale() -> None:
    """Of nothing, of NaN and of one reading."""
    for values in (np.zeros((0, 2)), np.full((5, 2), np.nan), np.ones((1, 2)), np.full((5, 2), np.inf)):
        assert np.isnan(Scale.fit(values).pairs()).all()
        assert np.isnan(RunningScale(2, past=values).scale.pairs()).all()


@pytest.mark.parametrize("absurd", [65535.0, -9999.0, np.inf])
def test_one_absurd_reading_leaves_the_scale_of_a_history(absurd: float) -> None:
    """A week with it has the scale of the week without, exactly; so has one with an hour of it."""
    week = readings(2016)
    for count in (1, 12):
        broken = week.copy()
        broken[100 : 100 + count] = absurd
        expected = np.delete(week, np.arange(100, 100 + count))
        assert Scale.fit(broken).mean[0] == pytest.approx(expected.mean())
        assert Scale.fit(broken).std[0] == pytest.approx(expected.std())


def test_rare_bursts_of_a_quiet_sensor_are_no_faults() -> None:
    """A rain gauge that reads zero at 199 of 200 times keeps its showers."""
    values = np.zeros((2000, 1))
    values[::200] = 5.0
    assert Scale.fit(values).std[0] == pytest.approx(values.std())


def test_one_absurd_reading_hardly_moves_a_running_scale() -> None:
    """After a week its spread is a tenth larger at most, for a while; it was 290 times as large for good."""
    running = RunningScale(1, 12)
    before = pushed(running, readings(2016)).std[0]
    assert before < pushed(running, np.array([[65535.0]])).std[0] < 1.12 * before
    assert pushed(running, readings(10000)).std[0] < 1.02 * before


@pytest.mark.parametrize("before", [np.zeros((2016, 1)), readings(2016)])
def test_a_sensor_that_has_moved_for_good_is_followed(before: npt.NDArray[np.float64]) -> None:
    """Repaired, or read in another unit: within a day its readings are plausible, within 20 spreads of its level."""
    running = RunningScale(1, 12, past=before)
    moved = pushed(running, readings(288, 4000.0))
    assert abs(4000 - moved.mean[0]) < 20 * moved.std[0]


def test_a_scale_goes_by_the_sensor_s_name() -> None:
    """Columns in another order, one new and one that is gone."""
    scale = Scale(np.array([60.0, 12.0, 30.0]), np.array([2.0, 1.0, 3.0]))
    found = scale.of_sensors(("highway", "lane", "gone"), ("new", "lane", "highway"))
    assert np.array_equal(found.mean, [np.nan, 12, 60], equal_nan=True)
    assert np.array_equal(found.std, [np.nan, 1, 2], equal_nan=True)


def test_what_a_scale_does_not_know_another_completes() -> None:
    """Sensors without one, and those that never changed while it was measured."""
    scale = Scale(np.array([60.0, np.nan, 30.0]), np.array([2.0, np.nan, 0.03]))
    found = scale.completed(Scale(np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0])))
    assert (found.mean.tolist(), found.std.tolist()) == ([60, 2, 3], [2, 5, 6])
