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
        places = round(period_s / interval_s)
        if places < 1 or abs(places * interval_s - period_s) > 1e-6 * period_s:
            raise DataError(f"a period of {period_s:g} s is no whole number of intervals of {interval_s:g} s")
        known = np.isfinite(table)
        total, count = np.zeros((places, table.shape[1])), np.zeros((places, table.shape[1]), np.int64)
        at = _place(times, interval_s, places)
        np.add.at(total, at, np.where(known, table, 0.0))
        np.add.at(count, at, known)
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
        at = _place(np.asarray(time_s, np.float64), self.interval_s, len(self.total))
        total, count = self.total[at, sensor], self.count[at, sensor]
        if without is not None:
            own = np.asarray(without, np.float64)
            total, count = total - np.nan_to_num(own), count - np.isfinite(own)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


@dataclass(frozen=True, eq=False)
class Places:
    """Where N windows end.

    Attributes:
        time_s: (N,) float64, seconds since 1970 of the last row of each window.
        sensor: (N,) int64, column of the device's series.
        last: (N,) float64, the window's last measured reading.
    """

    time_s: F8
    sensor: I8
    last: F8


def side_inputs(
    places: Places, ahead_s: npt.ArrayLike, profile: Profile, spread: npt.ArrayLike, truth: F8 | None = None
) -> F4:
    """Build what a device knows beside the window: which sensor it is, and what that sensor usually reads by then.

    Args:
        places: of N windows.
        ahead_s: (H,) seconds to each horizon.
        profile: of the device's S sensors.
        spread: (S,) float > 0, to measure in.
        truth: (N, H) the readings that came, where they are part of the profile's history (training); NaN missing.

    Returns:
        (N, S + H) float32: one-hot sensor, then the usual change until each horizon in units of the sensor's spread;
        0 where nothing is known.
    """
    sensors = profile.total.shape[1]
    usual = [
        profile.expected(places.time_s + ahead, places.sensor, None if truth is None else truth[:, at])
        for at, ahead in enumerate(np.asarray(ahead_s, np.float64).tolist())
    ]
    change = (np.stack(usual, axis=1) - places.last[:, None]) / np.asarray(spread)[places.sensor, None]
    return np.hstack([np.eye(sensors)[places.sensor], np.nan_to_num(change)]).astype(np.float32)


def _place(time_s: F8, interval_s: float, places: int) -> I8:
    return np.rint(time_s / interval_s).astype(np.int64) % places
