"""What a sensor usually reads at a time of the day or the week; owns no model and no clock.

A device knows the habits of its own sensors and no other's, so they enter its personal head, never a shared model. As
a forecast of its own this is the seasonal baseline ("historical average"; Li et al. 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_models.samples import F4
from edge_protocol.errors import DataError

F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]
DAY_S, WEEK_S = 86_400.0, 7 * 86_400.0
MAX_CHANGE = 20.0
"""Spreads from what is usual: a reading farther off is the sensor's fault, and no head is to extrapolate from it."""


@dataclass(frozen=True, eq=False)
class Readings:
    """M readings of S sensors, each measured, and none twice.

    Attributes:
        time_s: (M,) float64, seconds since 1970.
        sensor: (M,) int64 in [0, S).
        value: (M,) float64, in the sensors' unit.
        sensors: S.
    """

    time_s: F8
    sensor: I8
    value: F8
    sensors: int

    def before(self, until_s: float) -> Readings:
        """Those that came before a time."""
        kept = self.time_s < until_s
        return Readings(self.time_s[kept], self.sensor[kept], self.value[kept], self.sensors)


@dataclass(frozen=True, eq=False)
class Profile:
    """Sum and number of each sensor's readings at each place in the period.

    Attributes:
        total: (P, S) float64, in the sensors' unit.
        count: (P, S) int64, readings that were measured.
        interval_s: seconds between readings.
    """

    total: F8
    count: I8
    interval_s: float

    @classmethod
    def fit(cls, values: npt.ArrayLike, time_s: npt.ArrayLike, interval_s: float, period_s: float = DAY_S) -> Profile:
        """Learn the habits from a history.

        Args:
            values: (T, S) float, NaN missing.
            time_s: (T,) float, seconds since 1970.
            interval_s: seconds between readings.
            period_s: `DAY_S`, or `WEEK_S` for a history of several weeks.

        Raises:
            DataError: values and times do not belong together, or the period is no multiple of the interval.
        """
        table, times = np.asarray(values, np.float64), np.asarray(time_s, np.float64)
        if table.ndim != 2 or times.shape != table.shape[:1]:  # noqa: PLR2004 - a table
            raise DataError(f"a profile needs values (T, S) and time_s (T,), not {table.shape} and {times.shape}")
        row, sensor = np.nonzero(np.isfinite(table))
        return cls.of(Readings(times[row], sensor, table[row, sensor], table.shape[1]), interval_s, period_s)

    @classmethod
    def of(cls, readings: Readings, interval_s: float, period_s: float = DAY_S) -> Profile:
        """As `fit`, of readings one by one.

        Raises:
            DataError: the period is no multiple of the interval.
        """
        places = places_in(period_s, interval_s)
        if places is None:
            raise DataError(f"a period of {period_s:g} s is no whole number of intervals of {interval_s:g} s")
        total, count = np.zeros((places, readings.sensors)), np.zeros((places, readings.sensors), np.int64)
        at = place(readings.time_s, interval_s, places), readings.sensor
        np.add.at(total, at, readings.value)
        np.add.at(count, at, 1)
        return cls(total, count, interval_s)

    def expected(self, time_s: npt.ArrayLike, sensor: I8, without: npt.ArrayLike | None = None) -> F8:
        """What these sensors usually read at these times.

        Args:
            time_s: (N,) float, seconds since 1970.
            sensor: (N,) int64, columns of the history.
            without: (N,) readings that are part of the history and must not foretell themselves, NaN for none: a
                head that learnt from its own answers would trust its profile too much.

        Returns:
            (N,) float64, NaN where no other reading was ever measured at this place.
        """
        at = place(np.asarray(time_s, np.float64), self.interval_s, len(self.total))
        total, count = self.total[at, sensor], self.count[at, sensor]
        if without is not None:
            own = np.asarray(without, np.float64)
            total, count = total - np.nan_to_num(own), count - np.isfinite(own)
        return _mean(total, count)

    @property
    def repeated(self) -> Profile:
        """The places that were measured twice or more: elsewhere a reading that is left out leaves nothing."""
        count = self.count * (self.count > 1)
        return Profile(self.total * (count > 0), count, self.interval_s)

    @property
    def usual(self) -> F8:
        """What each sensor usually reads at each place: (P, S), NaN where nothing was ever measured."""
        return _mean(self.total, self.count)


@dataclass(frozen=True, eq=False)
class Places:
    """Where N windows end.

    Attributes:
        time_s: (N,) float64, seconds since 1970 of the last row of each window.
        sensor: (N,) int64, column of the device's series; -1 for a sensor that the device does not know.
        last: (N,) float64, the window's last measured reading.
        spread: (N,) float64 > 0, the sensor's, to measure in.
    """

    time_s: F8
    sensor: I8
    last: F8
    spread: F8

    def take(self, rows: I8) -> Places:
        """Some of them."""
        return Places(self.time_s[rows], self.sensor[rows], self.last[rows], self.spread[rows])


def side_inputs(places: Places, ahead_s: npt.ArrayLike, profile: Profile, truth: F8 | None = None) -> F4:
    """Build what a device knows beside the window: which sensor it is, and what that sensor usually reads by then.

    Args:
        places: of N windows.
        ahead_s: (H,) seconds to each horizon.
        profile: of the device's S sensors.
        truth: (N, H) the readings that came, where they are part of the profile's history (training); NaN missing.

    Returns:
        As `who_and_change`.
    """
    usual = [
        profile.expected(places.time_s + ahead, places.sensor, None if truth is None else truth[:, at])
        for at, ahead in enumerate(np.asarray(ahead_s, np.float64).tolist())
    ]
    return who_and_change(places, np.stack(usual, axis=1), profile.total.shape[1])


def who_and_change(places: Places, usual: F8, sensors: int) -> F4:
    """Build side inputs of N windows from what their sensors usually read at each horizon.

    Args:
        places: of the windows.
        usual: (N, H), NaN where nothing was ever measured.
        sensors: S.

    Returns:
        (N, S + H) float32: one-hot sensor, then the usual change until each horizon in units of the sensor's spread,
        `MAX_CHANGE` at most; 0 where nothing is known.
    """
    change = ((usual - places.last[:, None]) / places.spread[:, None]).clip(-MAX_CHANGE, MAX_CHANGE)
    inputs = np.hstack([np.eye(sensors)[places.sensor], np.nan_to_num(change)])
    return np.asarray(inputs * (places.sensor >= 0)[:, None], np.float32)


def places_in(period_s: float, interval_s: float) -> int | None:
    """How many intervals a period has; None when that is no whole number."""
    places = round(period_s / interval_s)
    return places if places >= 1 and abs(places * interval_s - period_s) <= 1e-6 * period_s else None


def slot(time_s: F8, interval_s: float) -> I8:
    """Number of the interval that is nearest to a time, of two the later one: (N,) int64."""
    return np.floor(time_s / interval_s + _LATER).astype(np.int64)


def place(time_s: F8, interval_s: float, places: int) -> I8:
    """The same within the period: (N,) int64 in [0, places)."""
    return slot(time_s, interval_s) % places


_LATER = 0.5 + 1e-3
"""A logger may stamp in the middle between two intervals; rounding must not send its rows both ways."""


def _mean(total: F8, count: I8) -> F8:
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
