"""What sensors usually read."""

from __future__ import annotations

import numpy as np
import pytest

from edge_models.profiles import DAY_S, WEEK_S, Places, Profile, side_inputs
from edge_protocol.errors import DataError

HOUR_S = 3600.0
HOURS = np.arange(72) * HOUR_S


def table() -> np.ndarray:
    """Three days of two sensors: the hour of the day plus 0, 1, 2 for the day; the second sensor reads 100 more."""
    hour, day = np.arange(72) % 24, np.arange(72) // 24
    return np.stack([hour + day, 100.0 + hour + day], axis=1)


def test_the_mean_over_days() -> None:
    """At 7 on a day that is not in the history each sensor is expected to read its mean at 7."""
    profile = Profile.fit(table(), HOURS, HOUR_S)
    found = profile.expected([9 * DAY_S + 7 * HOUR_S] * 2, np.array([0, 1]))
    np.testing.assert_allclose(found, [8, 108])


def test_a_reading_does_not_foretell_itself() -> None:
    """Left out, day 2's own 9 at 7 does not count: the mean of 7 and 8 is left; NaN leaves nothing out."""
    profile = Profile.fit(table(), HOURS, HOUR_S)
    at = [2 * DAY_S + 7 * HOUR_S] * 2
    np.testing.assert_allclose(profile.expected(at, np.array([0, 0]), [9, np.nan]), [7.5, 8])


def test_missing_readings_do_not_count_as_zero() -> None:
    """Two days missing leave the third; all missing is NaN, and so is what only itself would foretell."""
    values = table()
    values[7::24, 0] = [np.nan, np.nan, 9]
    values[8::24, 0] = np.nan
    profile = Profile.fit(values, HOURS, HOUR_S)
    found = profile.expected(np.array([7, 8, 7]) * HOUR_S, np.zeros(3, np.int64), [np.nan, np.nan, 9])
    np.testing.assert_allclose(found, [9, np.nan, np.nan])


def test_a_week_tells_days_apart() -> None:
    """With a period of a week each of three days is itself, and the fourth was never seen."""
    profile = Profile.fit(table(), HOURS, HOUR_S, WEEK_S)
    found = profile.expected(np.array([0, 1, 2, 3]) * DAY_S + WEEK_S, np.zeros(4, np.int64))
    np.testing.assert_allclose(found, [0, 1, 2, np.nan])


@pytest.mark.parametrize(
    ("values", "time_s", "interval_s"),
    [(np.zeros(3), np.zeros(3), HOUR_S), (np.zeros((3, 1)), np.zeros(2), HOUR_S), (np.zeros((3, 1)), HOURS[:3], 7.0)],
)
def test_what_does_not_fit_is_refused(values: np.ndarray, time_s: np.ndarray, interval_s: float) -> None:
    """A flat table, times of another length, an interval that does not divide the day."""
    with pytest.raises(DataError, match=r"needs values|no whole number"):
        Profile.fit(values, time_s, interval_s)


def test_side_inputs_say_who_and_what_is_usual() -> None:
    """Sensor 1 reads 8 now and usually 10 an hour on, 2 off in units of its spread 4; sensor 0 was never measured."""
    values = np.array([[np.nan, 8], [np.nan, 10], [np.nan, 12]])
    profile = Profile.fit(values, [0, 3600, 25 * 3600], 3600)
    places = Places(np.full(2, 48 * 3600.0), np.array([1, 0]), np.array([9.0, 9.0]), np.array([4.0, 1.0]))
    found = side_inputs(places, [3600.0], profile)
    np.testing.assert_allclose(found, [[0, 1, (11 - 9) / 4], [1, 0, 0]])
    own = side_inputs(places, [3600.0], profile, np.array([[12.0], [np.nan]]))
    np.testing.assert_allclose(own[0], [0, 1, (10 - 9) / 4])
