"""How habits are learnt: what counts, what must not foretell itself, and what must not be known yet."""

from __future__ import annotations

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_models.fit import fit_personal_head
from edge_models.habits import sensor_numbers
from edge_models.head_fits import FitSettings, MlpSettings
from edge_models.head_weights import HeadWeights
from edge_models.profiles import Profile
from edge_models.samples import Samples
from edge_models.scales import Scale
from edge_models.sensor_history import SensorHistory, own_inputs
from edge_models.tasks import load_task
from edge_models.windows import cut_with_ends
from edge_protocol.task import SeriesInput
from tests.edge_models.test_habits import DAY, NAMES, NUMBERS, SPEED, days, windows

COLUMNS = np.argsort(sensor_numbers(NAMES)[:, 0])


def history(stored: Samples, ends: np.ndarray, rows: np.ndarray) -> SensorHistory:
    """The history of named sensors."""
    found = own_inputs(SPEED, stored, ends, rows)
    assert isinstance(found, SensorHistory)
    return found


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.sampled_from([0.0, 0.3, 0.9]), st.integers(1, 4))
def test_windows_give_back_the_series_that_they_were_cut_from(seed: int, missing: float, count: int) -> None:
    """From the first window's end on every reading counts once, however often it is stored; none is made up."""
    values, times = days(count, seed, missing)
    stored, ends = windows(values, times)
    twice = Samples.concat([stored, stored])
    rows = np.arange(len(stored))
    _, _, habits = history(twice, np.concatenate([ends, ends]), rows).split(rows, rows[:0])
    usual = Profile.fit(values[11:, COLUMNS], times[11:], 300.0).repeated.usual
    for at, steps in enumerate(SPEED.horizons):
        np.testing.assert_allclose(habits.usual[at], np.roll(usual, -steps, axis=0), rtol=1e-4)


def test_no_reading_foretells_itself_and_what_was_read_once_is_no_habit() -> None:
    """With two days a window is told the other day's reading; with one it is told nothing, learning or asked."""
    values, times = days(2, missing=0)
    stored, ends = windows(values, times)
    rows = np.arange(len(stored))
    learnt, _, _ = history(stored, ends, rows).split(rows, rows[:0])
    first = 2 * (100 - 11) + COLUMNS[0]
    assert ends[first] == times[100]
    other_day = values[100 + DAY + np.array(SPEED.horizons), COLUMNS[0]]
    spread, last = stored.scale[first, 1], values[100, COLUMNS[0]]
    np.testing.assert_allclose(learnt[first, 2:], (other_day - last) / spread, atol=1e-3)
    half = rows[ends < times[DAY - 13]]
    short = stored.take(half)
    alone, _, habits = history(short, ends[half], np.arange(len(half))).split(np.arange(len(half)), half[:0])
    assert not alone[:, 2:].any()
    assert not habits.of_windows(stored)[:, 2:].any()


def test_what_is_compared_on_is_not_known() -> None:
    """Readings from the first window to compare on are changed to 0 mph: nothing that is learnt before changes."""
    values, times = days(4, missing=0)
    scale, numbers = Scale.fit(values), sensor_numbers(NAMES)
    spoilt = values.copy()
    spoilt[3 * DAY :] = 0.0
    found = []
    for table in (values, spoilt):
        stored, ends = cut_with_ends(table, times, SPEED, scale, side=numbers)
        rows = np.arange(len(stored))
        ask = rows[ends >= times[3 * DAY]]
        learn = rows[ends + 300 * max(SPEED.horizons) < times[3 * DAY]]
        found.append(history(stored, ends, rows).split(learn, ask))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][2].usual, found[1][2].usual)


def test_only_sensors_of_a_series_that_fits_the_day_have_a_history() -> None:
    """A clinic brings its own inputs; windows without a number, and rows every 7 s, have none."""
    values, times = days(1)
    stored, ends = windows(values, times)
    rows = np.arange(20)
    clinic, side = load_task("clinic"), np.ones((len(stored), 6), np.float32)
    given_too = own_inputs(clinic, Samples(stored.raw, stored.targets, side, stored.scale), ends, rows)
    np.testing.assert_array_equal(given_too, side[:20])
    unknown = Samples(stored.raw, stored.targets, np.full((len(stored), 1), np.nan, np.float32), stored.scale)
    odd = msgspec.structs.replace(SPEED, input=SeriesInput(steps=12, interval_s=7))
    for spec, each in ((SPEED, unknown), (odd, stored), (SPEED, Samples.of(stored.raw, stored.targets))):
        nothing = own_inputs(spec, each, ends, rows)
        assert isinstance(nothing, np.ndarray)
        assert nothing.shape == (20, 0)


def test_a_head_with_habits_answers_as_it_was_fitted_and_beats_one_without() -> None:
    """Sensors that do the same each day: half of the error goes, also once the head was written and read again."""
    values, times = days(6, missing=0.05)
    cut, ends = windows(values, times)
    past, later = np.flatnonzero(ends < times[5 * DAY]), np.flatnonzero(ends >= times[5 * DAY])
    stored = cut.take(past)
    features, rows = np.tanh(cut.raw.reshape(len(cut), -1)), np.arange(len(past))
    features = np.hstack([features, np.zeros((len(cut), 64 - features.shape[1]), np.float32)])
    shared = HeadWeights(np.zeros((6, 64), np.float32), np.zeros(6, np.float32))
    side = history(stored, ends[past], rows)
    targets, scale = stored.targets.astype(np.float32), stored.scale
    asked = FitSettings(heads=("linear", "mlp"), mlp=MlpSettings(steps=60))
    plain = fit_personal_head(features[past], stored.side[:, :0], targets, shared, SPEED, asked, scale=scale)
    found = fit_personal_head(features[past], side, targets, shared, SPEED, asked, scale=scale)
    assert found.chosen == "personal"
    assert found.head.habits is not None
    np.testing.assert_array_equal(found.head.habits.numbers, NUMBERS)
    again = HeadWeights.from_bytes(found.head.to_bytes()).fitting(SPEED)
    answers = again.answer(features[later], cut.take(later))
    np.testing.assert_allclose(answers, found.head.answer(features[later], cut.take(later)))
    truth = cut.targets[later].astype(np.float32)
    error, before = (
        float(np.nanmean(np.abs(head.answer(features[later], cut.take(later))[:, :3] - truth)))
        for head in (again, plain.head)
    )
    assert error < 0.9 * before
