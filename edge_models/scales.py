"""Level and spread of sensors, in which their windows are measured; owns no window, no clock and no file.

A logger that fails writes 65535 or -9999 for what it did not measure, and a counter glitches: one such reading must not
make all others look alike. Of a history it is left out; of readings that come one by one, where nobody knows yet what
follows, it counts as one at the edge of the plausible, so that a sensor that has moved for good is followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_models.samples import F4

F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]
ABSURD = 100.0
"""Spreads from its level: a reading farther off is the sensor's fault and counts as missing. True readings of METR-LA
and of Münster's bicycle counters lie within 20; by a scale of 17 hours without a jam, the first jam lies at 168."""
_MIN_MEASURED = 2
_AT_MOST = 20.0
"""Spreads from its level that a reading counts as in a running scale."""
_WIDTHS = 10.0
"""Of a history a reading farther beyond the middle 98 % than so many times their width is left out."""
_TAIL = 0.01


@dataclass(frozen=True, eq=False)
class Scale:
    """Level and spread of each sensor, from its history.

    Attributes:
        mean: (S,) float64, NaN for a sensor that was hardly ever measured: its windows hold no measurement.
        std: (S,) float64, > 0 or NaN.
    """

    mean: F8
    std: F8

    @classmethod
    def fit(cls, values: npt.ArrayLike) -> Scale:
        """Measure level and spread of (T, S) readings; NaN is missing."""
        return _scale_of(*_moments(np.asarray(values, np.float64)), _MIN_MEASURED)

    def of_sensors(self, own: Sequence[str], asked: Sequence[str]) -> Scale:
        """The scale of the sensors that are `asked`, by name; NaN for one that is not among its `own` S names."""
        pairs = dict(zip(own, zip(self.mean, self.std, strict=True), strict=True))
        mean, std = np.array([pairs.get(name, (np.nan, np.nan)) for name in asked], np.float64).reshape(-1, 2).T
        return Scale(mean, std)

    def completed(self, other: Scale) -> Scale:
        """This scale, with the other's for sensors that it does not know, or has never seen change."""
        known = self.std > _floor(self.mean)
        return Scale(np.where(known, self.mean, other.mean), np.where(known, self.std, other.std))

    def pairs(self) -> F4:
        """Return (S, 2) float32: mean and spread."""
        return np.stack([self.mean, self.std], axis=1).astype(np.float32)


class RunningScale:
    """Level and spread of each sensor as readings come (Welford 1962).

    Args:
        sensors: S.
        least: measurements that a sensor needs before it has a scale.
        past: (T, S) float readings to begin with, NaN missing; None for none.
    """

    def __init__(self, sensors: int, least: int = _MIN_MEASURED, past: npt.ArrayLike | None = None) -> None:
        self._least = max(least, _MIN_MEASURED)
        past = np.zeros((0, sensors)) if past is None else past
        self._count, self._mean, self._squares = _moments(np.asarray(past, np.float64))

    def push(self, readings: npt.ArrayLike) -> None:
        """Take (S,) readings, NaN missing; of a sensor that has never changed nothing is absurd."""
        row, scale = np.asarray(readings, np.float64), self.scale
        known = np.isfinite(row)
        most = np.where(scale.std > _floor(scale.mean), _AT_MOST * scale.std, np.inf)
        off = np.where(known, row - self._mean, 0.0).clip(-most, most)
        self._count += known
        self._mean += off / np.maximum(self._count, 1)
        self._squares += off**2 * (1 - 1 / np.maximum(self._count, 1))

    @property
    def scale(self) -> Scale:
        """What is known so far."""
        return _scale_of(self._count, self._mean, self._squares, self._least)


def _moments(table: F8) -> tuple[I8, F8, F8]:
    """Count, mean and sum of squared distances from it of (T, S) readings, without those that are absurd."""
    known = np.isfinite(table)
    ordered = np.sort(np.where(known, table, np.nan), axis=0)  # NaN comes last
    last = np.maximum(known.sum(axis=0) - 1, 0)
    low, high = (_row(ordered, np.rint(share * last).astype(np.int64)) for share in (_TAIL, 1 - _TAIL))
    width = np.where(high > low, _WIDTHS * (high - low), np.inf)
    known &= ~((table < low - width) | (table > high + width))
    count = known.sum(axis=0)
    mean = np.where(known, table, 0.0).sum(axis=0) / np.maximum(count, 1)
    return count, mean, (np.where(known, table - mean, 0.0) ** 2).sum(axis=0)


def _row(ordered: F8, at: I8) -> F8:
    """One row (S,) of a (T, S) table for each sensor; NaN of none."""
    return np.take_along_axis(ordered, at[None], axis=0)[0] if len(ordered) else np.full(len(at), np.nan)


def _scale_of(count: I8, mean: F8, squares: F8, least: int) -> Scale:
    """A sensor that never changes gets a thousandth of its level as spread."""
    std = np.maximum(np.sqrt(squares / np.maximum(count, 1)), _floor(mean))
    return Scale(np.where(count >= least, mean, np.nan), np.where(count >= least, std, np.nan))


def _floor(mean: F8) -> F8:
    return np.asarray(1e-3 * np.maximum(np.abs(mean), 1.0))
