"""What a head keeps of its sensors, and what it makes of a window."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.packs import SeriesPack
from edge_models.habits import MAX_BYTES, Habits, day_of, places_of, sensor_numbers
from edge_models.profiles import Profile, side_inputs
from edge_models.samples import Samples
from edge_models.scales import Scale
from edge_models.tasks import load_task
from edge_models.windows import cut_with_ends
from edge_protocol.errors import IncompatibleError
from edge_protocol.task import SeriesInput

SPEED = load_task("speed")
DAY = 288
NAMES = ("north", "south")
NUMBERS = np.sort(sensor_numbers(NAMES)[:, 0])


def days(count: int, seed: int = 0, missing: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Readings (T, 2) of two sensors that do the same each day, but for noise and holes, and their times."""
    rng = np.random.default_rng(seed)
    times = 1.6e9 // 86400 * 86400 + 300.0 * np.arange(count * DAY)
    values = 50 + 10 * np.sin(2 * np.pi * times[:, None] / 86400 + [0, 2]) + rng.normal(0, 1, (len(times), 2))
    values[rng.random(values.shape) < missing] = np.nan
    return values, times


def windows(values: np.ndarray, times: np.ndarray, names: tuple[str, ...] = NAMES) -> tuple[Samples, np.ndarray]:
    """Every window with its sensor's number, and its end."""
    return cut_with_ends(values, times, SPEED, Scale.fit(values), side=sensor_numbers(names))


def road_pack(values: np.ndarray, times: np.ndarray) -> SeriesPack:
    """The same as a pack."""
    return SeriesPack(values=values.astype(np.float32), time_s=times, interval_s=300.0, sensors=NAMES, unit="mph")


@pytest.mark.parametrize("offset_s", [0.0, 20.0, 150.0, 299.0])
def test_a_window_alone_tells_what_its_place_in_the_series_would(offset_s: float) -> None:
    """Clock channels and sensor number lead to the inputs that time and column do, wherever in it a row is."""
    values, times = days(3)
    values, times = values[:, np.argsort(sensor_numbers(NAMES)[:, 0])], times + offset_s
    names = tuple(sorted(NAMES, key=lambda name: float(sensor_numbers([name])[0, 0])))
    cut, ends = windows(values, times, names)
    profile = Profile.fit(values, times, 300.0)
    places = replace(places_of(cut, NUMBERS), time_s=ends)
    ahead = [300.0 * steps for steps in SPEED.horizons]
    found = Habits.of(profile, SPEED.horizons, NUMBERS).of_windows(cut)
    np.testing.assert_allclose(found, side_inputs(places, ahead, profile), atol=1e-4)


def test_a_sensor_is_known_by_its_name_wherever_its_column_is() -> None:
    """Columns in another order get the inputs that they had; a new name gets zeros, and so does a window without."""
    values, times = days(3)
    habits = Habits.of(Profile.fit(values, times, 300.0), SPEED.horizons, NUMBERS)
    cut, ends = windows(values, times)
    swapped, ends_too = windows(values[:, ::-1], times, NAMES[::-1])
    one = habits.of_windows(cut)[np.lexsort((cut.side[:, 0], ends))]
    other = habits.of_windows(swapped)[np.lexsort((swapped.side[:, 0], ends_too))]
    np.testing.assert_array_equal(one, other)
    new, _ = windows(values, times, ("east", "west"))
    assert not habits.of_windows(new).any()
    for side in (np.zeros((len(new), 0), np.float32), np.full((len(new), 1), np.nan, np.float32)):
        assert not habits.of_windows(Samples(new.raw, new.targets, side, new.scale)).any()


def test_what_nobody_can_say_is_zero_and_no_reading() -> None:
    """A sensor that was never measured is itself, and its usual change is none; a stray reading is bounded."""
    values, times = days(3)
    values[:, 0] = np.nan
    cut, _ = windows(days(3)[0], times)
    inputs = Habits.of(Profile.fit(values, times, 300.0), SPEED.horizons, NUMBERS).of_windows(cut)
    assert (inputs[:, :2].sum(axis=1) == 1).all()
    assert not inputs[inputs[:, 0] == 1, 2:].any()
    stray = replace(cut, raw=np.where([True, False, False, False], np.float32(1e6), cut.raw))
    assert np.abs(Habits.of(Profile.fit(values, times, 300.0), (3,), NUMBERS).of_windows(stray)).max() == 20


@given(st.lists(st.text(max_size=70), unique=True, max_size=40))
def test_numbers_are_exact_and_of_the_name_alone(names: list[str]) -> None:
    """Whole numbers below 2^24, which a float32 holds, in whatever order names come."""
    numbers = sensor_numbers(names)
    assert numbers.shape == (len(names), 1)
    assert ((numbers >= 0) & (numbers < 2**24) & (numbers % 1 == 0)).all()
    np.testing.assert_array_equal(sensor_numbers(names[::-1]), numbers[::-1])


def test_habits_of_another_task_and_damaged_ones_are_refused() -> None:
    """Other horizons or intervals do not fit; arrays that do not belong together, or hold infinity, are an error."""
    good = Habits(np.zeros((3, DAY, 2), np.float32), np.array([1, 2], np.float32))
    assert good.fit_task(SPEED)
    assert not good.fit_task(load_task("vehicle"))
    assert not good.fit_task(msgspec.structs.replace(SPEED, horizons=(3,)))
    assert not good.fit_task(msgspec.structs.replace(SPEED, input=SeriesInput(steps=12, interval_s=600)))
    assert day_of(msgspec.structs.replace(SPEED, input=SeriesInput(steps=12, interval_s=7))) is None
    full, large = np.full((3, DAY, 2), np.inf, np.float32), np.zeros((1, MAX_BYTES // 4, 2), np.float32)
    for usual, numbers in (
        (good.usual, [1, 2, 3]),
        (good.usual, [2, 1]),
        (good.usual, [1, np.nan]),
        (good.usual[0], [1, 2]),
        (good.usual[:, :, :0], []),
        (full, [1, 2]),
        (large, [1, 2]),
    ):
        with pytest.raises(IncompatibleError, match="fit them again"):
            Habits(usual, np.array(numbers, np.float32))
