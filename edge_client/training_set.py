"""What a training job learns from, as its heads take it; owns neither the store nor the trunk, and needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from edge_client.jobs import TrainJob
from edge_client.stored import read_stored
from edge_models.samples import F4, Samples
from edge_models.sensor_history import SensorHistory, own_inputs
from edge_models.thinning import evenly
from edge_protocol.task import TaskSpec

FARTHEST = 1e6
"""A sample with an input beyond is left out: sums of squares overflow, and no head can be fitted with it."""


@dataclass(frozen=True, eq=False, slots=True)
class TrainingSet:
    """Samples of the replay store, in order of time.

    Attributes:
        names: N names there.
        samples: the N samples.
        features: (N, 64) float32, what the trunk makes of them.
        own: what a personal head is given beside features: (N, F) float32, or what the device's sensors have read.
        left_out: samples that no head can be fitted on.
    """

    names: list[str]
    samples: Samples
    features: F4
    own: F4 | SensorHistory
    left_out: int

    @classmethod
    def read(cls, job: TrainJob, trunk: Callable[[npt.NDArray[np.generic]], F4]) -> TrainingSet:
        """Read what a job learns from: a forecaster's habits of all windows, heads of as many of each sensor.

        Args:
            job: names the store.
            trunk: makes features (N, 64) float32 of raw samples.

        Raises:
            StoreError: the store cannot be read, or holds samples of another shape.
        """
        spec = job.spec
        kept = read_stored(Path(job.replay), spec, job.max_samples if spec.labels else None)
        rows = np.arange(len(kept.names)) if spec.labels else evenly(sensors_of(kept.samples), job.max_samples)
        features = trunk(kept.samples.raw[rows])
        good = learnable(spec, kept.samples, features, rows)
        rows = rows[good]
        own = own_inputs(spec, kept.samples, kept.at_s, rows)
        names = [kept.names[at] for at in rows]
        return cls(names, kept.samples.take(rows), features[good], own, int((~good).sum()))


def sensors_of(windows: Samples) -> npt.NDArray[np.int64]:
    """Which sensor each window is of: (N,) int64, 0 or more, in no order; those without a number are of one."""
    return np.unique(windows.side.sum(axis=1), return_inverse=True)[1].astype(np.int64)


def learnable(spec: TaskSpec, stored: Samples, features: F4, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which of `rows` (N,) a head can be fitted on, (N,) bool, by their `features` (N, K), own inputs and targets.

    One bad frame must not stop all learning; nor may it decide, where noise hides it, whether there is a report.
    """
    targets = cast("F4", stored.targets[rows])  # or int64: what a task's kind has
    inputs = np.hstack([features, stored.side[rows]]) if spec.labels else features
    known = targets < len(spec.labels) if spec.labels else ~(np.abs(targets) > FARTHEST).any(1)
    return np.asarray((np.abs(inputs) <= FARTHEST).all(1) & known)
