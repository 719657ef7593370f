"""Learns the habits of a device's sensors out of the windows that it keeps; owns no head, no file and no clock.

Every reading that a window ends with or foretells counts once, whatever holds it twice. While a head is fitted no
reading foretells itself, so what was read once is no habit: a head that was fitted without an input must not be asked
with it. While heads are compared nothing is known that came after the first window they are compared on.
"""

from __future__ import annotations

import numpy as np

from edge_models.habits import MAX_BYTES, Habits, day_of, places_of
from edge_models.profiles import F8, I8, Profile, Readings, side_inputs, slot
from edge_models.samples import F4, Samples
from edge_protocol.task import SeriesInput, TaskSpec


class SensorHistory:
    """What a device's personal head may know of its own sensors.

    Args:
        spec: the task, of forecasts whose interval divides the day.
        stored: M windows that the device keeps, each with its sensor's number or NaN.
        end_s: (M,) float64, seconds since 1970 of each window's end, in order.
        rows: (N,) int64, the windows of these that a head is fitted on.
        numbers: (S,) float32, rising, S > 0: the sensors' numbers.
    """

    def __init__(self, spec: TaskSpec, stored: Samples, end_s: F8, rows: I8, numbers: F4) -> None:
        assert isinstance(spec.input, SeriesInput)
        self._horizons, self._numbers, self._interval_s = spec.horizons, numbers, spec.input.interval_s
        self._ahead_s = np.array(spec.horizons) * self._interval_s
        places = places_of(stored, numbers)
        truth = places.last[:, None] + places.spread[:, None] * stored.targets.astype(np.float64)
        newest = np.where(stored.raw[:, -1, 1].astype(bool), places.last, np.nan)
        values = np.hstack([newest[:, None], truth])
        at_s = end_s[:, None] + np.hstack([0, self._ahead_s])
        self._readings = _each_once(values, at_s, places.sensor, self._interval_s, len(numbers))
        self._places, self._truth, self._end_s = places.take(rows), truth[rows], end_s[rows]

    def split(self, learn: I8, ask: I8) -> tuple[F4, F4, Habits]:
        """Side inputs (N, S + H) float32 of rows to learn from and of later ones to ask, and the habits behind both."""
        until_s = self._end_s[ask].min() if len(ask) else np.inf
        profile = Profile.of(self._readings.before(until_s), self._interval_s)
        known = self._end_s[learn, None] + self._ahead_s < until_s
        truth = np.where(known, self._truth[learn], np.nan)
        learnt = side_inputs(self._places.take(learn), self._ahead_s, profile, truth)
        asked = side_inputs(self._places.take(ask), self._ahead_s, profile.repeated)
        return learnt, asked, Habits.of(profile.repeated, self._horizons, self._numbers)


def own_inputs(spec: TaskSpec, stored: Samples, at_s: F8, rows: I8) -> F4 | SensorHistory:
    """What a personal head is given beside features, for `rows` (N,) of everything `stored` (M,) in order of `at_s`.

    Returns:
        The history of the device's sensors; where there are none, or habits of a day would be none, (N, F) float32.
    """
    if spec.labels:
        return stored.side[rows]
    numbers = np.unique(stored.side[np.isfinite(stored.side)])
    size = 4 * (day_of(spec) or 0) * len(numbers) * len(spec.horizons)
    if not 0 < size <= MAX_BYTES:
        return np.zeros((len(rows), 0), np.float32)
    return SensorHistory(spec, stored, at_s, rows, numbers)


def _each_once(values: F8, at_s: F8, sensor: I8, interval_s: float, sensors: int) -> Readings:
    """Readings (N, K) of windows, NaN missing, without those that several windows hold."""
    row, column = np.nonzero(np.isfinite(values) & (sensor >= 0)[:, None])
    time_s = at_s[row, column]
    _, first = np.unique(slot(time_s, interval_s) * sensors + sensor[row], return_index=True)
    return Readings(time_s[first], sensor[row][first], values[row, column][first], sensors)
