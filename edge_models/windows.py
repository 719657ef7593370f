"""Windows of readings, normalised and answered by the readings that follow; needs no torch, owns no clock and no file.

A missing reading is never zero: its value is 0 *and* its measured flag is 0; one that is absurd counts as missing. A
target comes only from a measured reading, and a window without any measurement is not a sample. Value and target are in
units of the sensor's own spread, as changes against the last measured value of the window, so that one student serves
sensors of any level.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_models.samples import F4, Samples
from edge_models.scales import ABSURD, F8, RunningScale, Scale
from edge_protocol.errors import DataError
from edge_protocol.task import SeriesInput, TaskSpec

DAY_S = 86_400.0
_LONGEST_GAP = 50
"""How many times longer than its number of rows a series may last."""


class Matured(NamedTuple):
    """A window whose last horizon has passed.

    Attributes:
        window: (steps, 4) float32.
        target: (H,) float32.
        side: (F,) float32, its sensor's.
        scale: (2,) float32.
        end_s: when it ended, seconds since 1970.
    """

    window: F4
    target: F4
    side: F4
    scale: F4
    end_s: float


def last_measured(windows: F4) -> F4:
    """Each window's last measured value, (N,) float32 in units of spread, of (N, steps, 4); 0 where there is none."""
    latest = windows.shape[1] - 1 - windows[:, ::-1, 1].argmax(axis=1)
    return np.asarray(windows[np.arange(len(windows)), latest, 0], np.float32)


def cut_windows(
    values: npt.ArrayLike, time_s: npt.ArrayLike, spec: TaskSpec, scale: Scale | None = None, *, stride: int = 1
) -> Samples:
    """Cut every window of a series, ordered by time and then by sensor.

    Args:
        values: (T, S) float, NaN missing.
        time_s: (T,) float, seconds since 1970, increasing; rows left out are missing readings.
        spec: the task; its input is a series.
        scale: of the S sensors; measured on `values` when None.
        stride: keep every so-many-th window in time.

    Raises:
        DataError: shapes, times or interval do not fit the task.
    """
    return cut_with_ends(values, time_s, spec, scale, stride=stride)[0]


def cut_with_ends(
    values: npt.ArrayLike,
    time_s: npt.ArrayLike,
    spec: TaskSpec,
    scale: Scale | None = None,
    *,
    stride: int = 1,
    side: F4 | None = None,
) -> tuple[Samples, F8]:
    """As `cut_windows`, with when each window ends: (N,) float64, seconds since 1970.

    `side` (S, F) float32 is what each sensor's windows have as side inputs; None for none.
    """
    series = _series_input(spec)
    grid, start_s = _on_grid(np.asarray(values, np.float64), np.asarray(time_s, np.float64), series)
    scale = scale or Scale.fit(grid)
    side = _no_side(grid.shape[1]) if side is None else side
    if not len(scale.mean) == len(side) == grid.shape[1]:
        raise DataError(f"scale is of {len(scale.mean)} sensors, side of {len(side)}, the series of {grid.shape[1]}")
    ends = np.arange(series.steps - 1, len(grid), stride)
    ahead = np.full((max(spec.horizons), grid.shape[1]), np.nan)
    return _cut(np.concatenate([grid, ahead]), ends, start_s, spec, scale, side)


class LiveWindows:
    """Windows of a running sensor group: what to forecast from now, and what past windows turned out to be worth.

    Args:
        spec: the task; its input is a series.
        sensors: S.
        scale: from the sensors' history. Where it is NaN or None it is learned as readings come, and a sensor has no
            measured window until it was measured as often as a window is long.
        side: (S, F) float32, as for `cut_windows`.
        past: (T, S) float readings that a learned scale begins with, NaN missing; None for none.
    """

    def __init__(
        self,
        spec: TaskSpec,
        sensors: int,
        scale: Scale | None = None,
        side: F4 | None = None,
        past: npt.ArrayLike | None = None,
    ) -> None:
        self._spec, self._series = spec, _series_input(spec)
        self._scale, self.side = scale, _no_side(sensors) if side is None else side
        self._running = RunningScale(sensors, self._series.steps, past)
        self._rows = np.full((self._series.steps + max(spec.horizons), sensors), np.nan)
        self._slot: int | None = None

    @property
    def scale(self) -> Scale:
        """The scale that the next window will have."""
        learned = self._running.scale
        return learned if self._scale is None else self._scale.completed(learned)

    def push(self, readings: npt.ArrayLike, at_s: float) -> tuple[F4, list[Matured]]:
        """Take the readings of one interval.

        A reading for the interval that came last fills what was missing there; an older one is dropped. Intervals left
        out are missing readings.

        Args:
            readings: (S,) float, NaN missing.
            at_s: seconds since 1970.

        Returns:
            The (S, steps, 4) float32 windows that end now, and those that have matured.

        Raises:
            DataError: another number of sensors than before.
        """
        row = np.asarray(readings, np.float64)
        if row.shape != self._rows.shape[1:]:
            raise DataError(f"got readings of shape {row.shape}, this group has {self._rows.shape[1]} sensors")
        slot = round(at_s / self._series.interval_s)
        matured = self._advance(slot)
        if slot == self._slot:
            fresh = np.where(np.isfinite(self._rows[-1]), np.nan, row)
            self._running.push(fresh)
            self._rows[-1] = np.where(np.isfinite(fresh), fresh, self._rows[-1])
        return self._now(), matured

    def _advance(self, slot: int) -> list[Matured]:
        """Move on to `slot`, interval by interval; what falls off the far end has matured."""
        if self._slot is None:
            self._slot = slot
            return []
        matured: list[Matured] = []
        for passed in range(min(slot - self._slot, len(self._rows))):
            matured += self._matured(self._slot + passed)
            self._rows = np.roll(self._rows, -1, axis=0)
            self._rows[-1] = np.nan
        self._slot = max(slot, self._slot)
        return matured

    def _matured(self, slot: int) -> list[Matured]:
        ends = np.array([self._series.steps - 1])
        start_s = (slot - len(self._rows) + 1) * self._series.interval_s
        found, end_s = _cut(self._rows, ends, start_s, self._spec, self.scale, self.side)
        rows = zip(found.raw, found.targets, found.side, found.scale, end_s.tolist(), strict=True)
        return [Matured(*row) for row, known in zip(rows, found.labelled, strict=True) if known]

    def _now(self) -> F4:
        assert self._slot is not None
        start_s = (self._slot - self._series.steps + 1) * self._series.interval_s
        values = _normalised(self._rows[-self._series.steps :], self.scale)
        return _window_channels(values.T[:, None, :], start_s, np.array([0]), self._series)[:, 0]


def _series_input(spec: TaskSpec) -> SeriesInput:
    if not isinstance(spec.input, SeriesInput):
        raise DataError(f"task {spec.name!r} takes images: windows are cut for tasks whose input is a series")
    return spec.input


def _on_grid(values: F8, time_s: F8, series: SeriesInput) -> tuple[F8, float]:
    """Put rows into their intervals: (R, S) with NaN where no row came, and the time of row 0."""
    if values.ndim != 2 or not len(values) or time_s.shape != values.shape[:1]:  # noqa: PLR2004
        raise DataError(f"series needs values (T, S) and time_s (T,), not {values.shape} and {time_s.shape}")
    step_s = np.diff(time_s)
    if not np.isfinite(time_s).all() or (step_s <= 0).any():
        raise DataError("series needs times in seconds that increase from row to row; sort it and drop repeated rows")
    if len(step_s) and not 0.5 < np.median(step_s) / series.interval_s < 1.5:  # noqa: PLR2004
        raise DataError(
            f"series has a row every {np.median(step_s):g} s, the task one every {series.interval_s:g} s; resample it"
        )
    slots = np.rint((time_s - time_s[0]) / series.interval_s).astype(np.int64)
    if slots[-1] > _LONGEST_GAP * len(values) + series.steps:
        raise DataError(
            f"series of {len(values)} rows lasts {slots[-1]} intervals: a time stamp is wrong, or cut it at the gap"
        )
    grid = np.full((slots[-1] + 1, values.shape[1]), np.nan)
    grid[slots] = values
    return grid, float(time_s[0])


def _normalised(rows: F8, scale: Scale) -> F8:
    spreads = (rows - scale.mean) / scale.std
    return np.where(np.abs(spreads) <= ABSURD, spreads, np.nan)


def _no_side(sensors: int) -> F4:
    return np.zeros((sensors, 0), np.float32)


def _cut(
    rows: F8, ends: npt.NDArray[np.int64], start_s: float, spec: TaskSpec, scale: Scale, side: F4
) -> tuple[Samples, F8]:
    """Cut windows that end at rows `ends`, with their times; (R, S) rows reach past the last horizon."""
    series = _series_input(spec)
    values = _normalised(rows, scale)
    first = ends - series.steps + 1
    windows = values.T[:, first[:, None] + np.arange(series.steps)]  # (S, W, steps)
    known = np.isfinite(windows)
    latest = series.steps - 1 - known[..., ::-1].argmax(axis=-1)
    last = np.take_along_axis(windows, latest[..., None], axis=-1)
    targets = values.T[:, ends[:, None] + np.array(spec.horizons)] - last  # (S, W, H)
    raw = _window_channels(windows, start_s, first, series)
    keep = known.any(axis=-1).T
    at, sensor = np.nonzero(keep)
    changes = targets.swapaxes(0, 1)[keep].astype(np.float32)
    samples = Samples.of(raw.swapaxes(0, 1)[keep], changes, side=side[sensor], scale=scale.pairs()[sensor])
    return samples, np.asarray(start_s + ends[at] * series.interval_s, np.float64)


def _window_channels(windows: F8, start_s: float, first: npt.NDArray[np.int64], series: SeriesInput) -> F4:
    """Turn (S, W, steps) values, NaN missing, into (S, W, steps, 4) float32 channels."""
    rows = first[:, None] + np.arange(series.steps)
    angle = 2 * np.pi * ((start_s + rows * series.interval_s) % DAY_S) / DAY_S
    known = np.isfinite(windows)
    clock = (np.broadcast_to(wave(angle), windows.shape) for wave in (np.sin, np.cos))
    return np.stack([np.where(known, windows, 0.0), known, *clock], axis=-1).astype(np.float32)
