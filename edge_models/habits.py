"""What a device's own sensors usually do, as a personal head keeps it: the head's inputs beside features. No torch.

A window knows its time of day by its clock channels and its sensor by that sensor's number, so that a head and its
habits answer it alone: they are one file, swap together, and cannot be of two fits. How they are learnt: see
`sensor_history`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from edge_models.profiles import DAY_S, I8, Places, Profile, place, places_in, who_and_change
from edge_models.samples import F4, Samples
from edge_models.windows import last_measured
from edge_protocol.errors import IncompatibleError
from edge_protocol.task import SeriesInput, TaskSpec

MAX_BYTES = 4 << 20
"""Habits are at most so large: 400 sensors that are read every two minutes, at three horizons."""


@dataclass(frozen=True, eq=False)
class Habits:
    """What each sensor usually reads at each horizon of a window that ends at each place in the day.

    Attributes:
        usual: (H, P, S) float32, in the sensors' unit; NaN where nobody can say.
        numbers: (S,) float32, rising: the sensors' numbers, see `sensor_numbers`.

    Raises:
        IncompatibleError: the arrays do not fit each other, hold infinity, or exceed `MAX_BYTES`.
    """

    usual: F4
    numbers: F4

    def __post_init__(self) -> None:
        shape = self.usual.shape
        fits = len(shape) == 3 and self.numbers.shape == shape[2:] and min(shape) > 0  # noqa: PLR2004 - see above
        if not fits or not (np.diff(self.numbers) > 0).all() or not np.isfinite(self.numbers).all():
            raise IncompatibleError(f"habits of {shape} do not belong to sensors {self.numbers[:8]}; fit them again")
        if np.isinf(self.usual).any() or self.usual.nbytes > MAX_BYTES:
            raise IncompatibleError(f"habits of {shape} hold infinity, or are too many; fit them again")

    @classmethod
    def of(cls, profile: Profile, horizons: Sequence[int], numbers: F4) -> Habits:
        """What a profile of a day says at each horizon."""
        usual = np.stack([np.roll(profile.usual, -steps, axis=0) for steps in horizons])
        return cls(usual.astype(np.float32), numbers)

    @property
    def inputs(self) -> int:
        """How many side inputs they make: S + H."""
        return int(self.usual.shape[2] + self.usual.shape[0])

    def fit_task(self, spec: TaskSpec) -> bool:
        """Whether they are of a task's horizons and interval."""
        return self.usual.shape[:2] == (len(spec.horizons), day_of(spec))

    def of_windows(self, windows: Samples) -> F4:
        """Side inputs (N, S + H) float32 of N windows as `edge_models.windows` cuts them, with their sensors' numbers.

        Without a number, or with one that these habits do not know, a window gets zeros.
        """
        where = places_of(windows, self.numbers)
        at = place(where.time_s, DAY_S / self.usual.shape[1], self.usual.shape[1])
        return who_and_change(where, self.usual[:, at, where.sensor].T.astype(np.float64), len(self.numbers))


def day_of(spec: TaskSpec) -> int | None:
    """How many windows end in a day; None when that is no whole number, or the task has no series."""
    return places_in(DAY_S, spec.input.interval_s) if isinstance(spec.input, SeriesInput) else None


def sensor_numbers(names: Sequence[str]) -> F4:
    """Numbers of S sensors, (S, 1) float32: 24 bits of the CRC of each name, which a float32 holds exactly.

    A number stays when columns change places, and needs no register. On one of 400 devices of 300 sensors two sensors
    get the same, and share their habits.
    """
    return np.array([[crc32(name.encode()) >> 8] for name in names], np.float32).reshape(len(names), 1)


def places_of(windows: Samples, numbers: F4) -> Places:
    """Where windows end, the time of day by their clock; sensors are places in `numbers`, (S,) float32, rising."""
    sine, cosine = windows.raw[:, -1, 2].astype(np.float64), windows.raw[:, -1, 3].astype(np.float64)
    mean, spread = windows.scale.T.astype(np.float64)
    last = mean + spread * last_measured(np.asarray(windows.raw, np.float32))
    return Places(np.arctan2(sine, cosine) % (2 * np.pi) * DAY_S / (2 * np.pi), _found(windows, numbers), last, spread)


def _found(windows: Samples, numbers: F4) -> I8:
    if not windows.side.shape[1]:
        return np.full(len(windows), -1, np.int64)
    asked = windows.side[:, 0]
    at = np.searchsorted(numbers, asked).clip(0, len(numbers) - 1)
    return np.where(numbers[at] == asked, at, -1).astype(np.int64)
