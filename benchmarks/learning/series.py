"""Sensors as a fleet sees them: each device's windows of history, choice and test, and how forecasts are scored.

Owns cutting and scoring; owns no model and no method. Missing readings are masked everywhere: they enter no window as a
value, no loss and no score. The one exception is the column `mae_unmasked`, which counts an outage as a reading of 0 to
show what that mistake does to a figure (CNFGNN's published errors on METR-LA carry it).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib.stride_tricks import sliding_window_view

from benchmarks.learning.stacked import Part
from devices.packs import SeriesPack
from edge_models.profiles import F8, I8, Places, Profile, side_inputs
from edge_models.samples import F4
from edge_models.scales import Scale
from edge_models.windows import cut_windows, last_measured
from edge_protocol.task import SeriesInput, TaskSpec

HISTORY, CHOICE = 0.7, 0.1
"""Parts of the time: what devices learn from, and what they choose a head on; the rest is the test."""
Deal = Callable[[SeriesPack, int, np.random.Generator], list[I8]]
"""Deals the columns of a pack out to so many devices."""


@dataclass(frozen=True)
class SeriesTask:
    """A data set and what is asked of it.

    Attributes:
        pack: name of its file, without ending.
        spec: window, horizons and unit.
        devices: how many.
        deal: which sensors each device has.
        period_s: of the sensors' habits.
        stride: keep every so-many-th window of the history.
        least: MAPE counts readings of at least this, in the unit.
        fixed: every seed deals the same devices, so that seeds are no independent samples of them.
    """

    pack: str
    spec: TaskSpec
    devices: int
    deal: Deal
    period_s: float
    stride: int
    least: float
    fixed: bool

    @property
    def ahead_s(self) -> list[float]:
        """Seconds to each horizon."""
        assert isinstance(self.spec.input, SeriesInput)
        return [steps * self.spec.input.interval_s for steps in self.spec.horizons]


@dataclass(frozen=True, eq=False)
class Windows:
    """N windows of one device in one part of the time.

    Attributes:
        x: (N, steps, 4) float32 tensor.
        targets: (N, H) float32 changes in units of spread, NaN missing.
        places: where they end.
        truth: (N, H) float64 readings that came, NaN missing.
        inside: (N, H) bool, the horizon lies in this part of the time.
    """

    x: torch.Tensor
    targets: F4
    places: Places
    truth: F8
    inside: npt.NDArray[np.bool_]

    @property
    def part(self) -> Part:
        """The windows that have a target, for training."""
        kept = ~np.isnan(self.targets).all(axis=1)
        return self.x[torch.from_numpy(kept)], torch.from_numpy(self.targets[kept])


@dataclass(frozen=True, eq=False)
class DeviceSeries:
    """One device: its parts, and what it knows of its own sensors."""

    history: Windows
    choice: Windows
    test: Windows
    profile: Profile
    task: SeriesTask

    def side(self, windows: Windows) -> F4:
        """Side inputs of its personal head; in its history no reading foretells itself."""
        truth = windows.truth if windows is self.history else None
        return side_inputs(windows.places, self.task.ahead_s, self.profile, truth)

    def usual(self, windows: Windows) -> F4:
        """Seasonal forecast: the change to what is usual at each horizon, in units of spread."""
        return self.side(windows)[:, -len(self.task.ahead_s) :]


def device_series(pack: SeriesPack, task: SeriesTask) -> DeviceSeries:
    """Cut one device's sensors; level, spread and habits come from its history alone."""
    first, second = int(len(pack) * HISTORY), int(len(pack) * (HISTORY + CHOICE))
    values = pack.values.astype(np.float64)
    scale = Scale.fit(values[:first])
    history, choice, test = (
        _cut(pack, task, scale, span, stride)
        for span, stride in (
            ((0, first), task.stride),
            ((first, second), task.stride),
            ((second, len(pack)), 1),
        )
    )
    profile = Profile.fit(values[:first], pack.time_s[:first], pack.interval_s, task.period_s)
    return DeviceSeries(history, choice, test, profile, task)


def _cut(pack: SeriesPack, task: SeriesTask, scale: Scale, span: tuple[int, int], stride: int) -> Windows:
    """Windows that end in the rows of a span, and whose horizons count only inside it."""
    assert isinstance(task.spec.input, SeriesInput)
    steps = task.spec.input.steps
    begin, end = max(span[0] - steps + 1, 0), span[1]
    values, time_s = pack.values[begin:end].astype(np.float64), pack.time_s[begin:end]
    samples = cut_windows(values, time_s, task.spec, scale, stride=stride)
    known = sliding_window_view(np.isfinite(values) & np.isfinite(scale.mean), steps, axis=0)
    row, sensor = np.nonzero(np.any(known[::stride], axis=-1))
    row = row * stride + steps - 1
    ahead = row[:, None] + np.array(task.spec.horizons)
    inside = ahead < len(values)
    truth = np.where(inside, values[np.minimum(ahead, len(values) - 1), sensor[:, None]], np.nan)
    raw = samples.raw.astype(np.float32)
    last = last_measured(raw) * scale.std[sensor] + scale.mean[sensor]
    return Windows(
        torch.from_numpy(raw),
        samples.targets.astype(np.float32),
        Places(time_s[row], sensor, last, scale.std[sensor]),
        truth,
        inside,
    )


def scores(windows: Windows, change: F4, least: float) -> dict[str, list[float]]:
    """Errors of forecast changes (N, H), each as a list over horizons; NaN where nothing can be measured.

    `mae` and `rmse` are in the unit, over what was measured; `mape` in percent, over readings of at least `least`;
    `mae_unmasked` counts what was not measured as 0.
    """
    forecast = windows.places.last[:, None] + change * windows.places.spread[:, None]
    error = np.abs(forecast - windows.truth)
    share = np.where(windows.truth >= least, 100 * error / np.maximum(windows.truth, least), np.nan)
    zeroed = np.where(windows.inside, np.abs(forecast - np.nan_to_num(windows.truth)), np.nan)
    means = {"mae": error, "rmse": error**2, "mape": share, "mae_unmasked": zeroed}
    found = {name: _means(table) for name, table in means.items()}
    found["rmse"] = np.sqrt(found["rmse"])
    return {name: values.tolist() for name, values in found.items()}


def _means(table: F8) -> F8:
    known = np.isfinite(table)
    count = known.sum(axis=0)
    return np.where(count > 0, np.where(known, table, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)
