"""Plug-in of tasks that forecast a reading at several horizons, as mean and log-spread of its change."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edge_models.samples import F4, Samples
from edge_models.windows import cut_windows
from edge_protocol.errors import DataError
from edge_protocol.task import SeriesInput, TaskSpec

headline = "mae"
higher_is_better = False


def score(spec: TaskSpec, logits: F4, targets: npt.NDArray[np.generic], scale: F4 | None = None) -> dict[str, float]:
    """Return mean absolute and root mean square error in `spec.unit`, overall and per horizon, over measured values.

    ``mae_persistence`` is the error of saying that nothing changes.

    Args:
        spec: the task.
        logits: (N, 2H) float32: H mean changes, then H log-spreads, in units of the sensor's spread.
        targets: (N, H) float32, the true changes, NaN where nothing was measured.
        scale: (N, 2) float32, mean and spread of each sample's sensor in `spec.unit`.

    Raises:
        DataError: no scale, or no horizon of any sample was measured.
    """
    if scale is None:
        raise DataError(f"task {spec.name!r}: a forecast is scored in {spec.unit}, which needs the samples' scale")
    spreads = scale[:, 1:].astype(np.float64)
    truth = targets.astype(np.float64)
    error = np.abs(logits[:, : truth.shape[1]] - truth) * spreads
    known = np.isfinite(truth)
    if not known.any():
        raise DataError(f"task {spec.name!r}: none of {len(truth)} windows has a measured horizon to score")
    found = {
        "mae": error[known].mean(),
        "rmse": np.sqrt((error[known] ** 2).mean()),
        "mae_persistence": np.abs(truth * spreads)[known].mean(),
    }
    for at, steps in enumerate(spec.horizons):
        if known[:, at].any():
            found[f"mae_{_minutes(spec, steps)}min"] = error[known[:, at], at].mean()
            found[f"rmse_{_minutes(spec, steps)}min"] = np.sqrt((error[known[:, at], at] ** 2).mean())
    return {name: float(value) for name, value in found.items()}


def side(record: Mapping[str, str]) -> F4:
    """Return (0,) float32: a plain sensor has no inputs beside its readings."""
    del record
    return np.zeros(0, np.float32)


def simulate(spec: TaskSpec, rng: np.random.Generator, n: int) -> Samples:
    """Draw n labelled windows of sensors with a daily pattern, slow noise and a few outages.

    Raises:
        DataError: the task's input is not a series.
    """
    if not isinstance(spec.input, SeriesInput):
        raise DataError(f"task {spec.name!r}: forecast simulates series, and its input is an image")
    sensors = 8
    rows = n // sensors + spec.input.steps + max(spec.horizons) + 8
    time_s = np.arange(rows) * spec.input.interval_s
    day = np.sin(2 * np.pi * (time_s[:, None] / 86_400 + rng.random(sensors)))
    drift = np.zeros((rows, sensors))
    for row in range(1, rows):
        drift[row] = 0.8 * drift[row - 1] + rng.normal(0, 2, sensors)
    values = rng.uniform(30, 60, sensors) + 10 * day + drift
    values[rng.random(values.shape) < 0.05] = np.nan  # noqa: PLR2004
    samples = cut_windows(values, time_s, spec)
    return samples.take(np.flatnonzero(samples.labelled)[:n])


def _minutes(spec: TaskSpec, steps: int) -> str:
    assert isinstance(spec.input, SeriesInput)
    return f"{steps * spec.input.interval_s / 60:g}"
