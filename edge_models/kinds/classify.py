"""Plug-in of tasks that sort a sample into one of the labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edge_models.samples import F4, UNLABELLED, Samples
from edge_protocol.errors import DataError
from edge_protocol.task import ImageInput, TaskSpec

headline = "accuracy"
higher_is_better = True


def score(spec: TaskSpec, logits: F4, targets: npt.NDArray[np.generic], scale: F4 | None = None) -> dict[str, float]:
    """Return accuracy and balanced accuracy (mean recall over the classes present), each in [0, 1].

    Args:
        spec: the task.
        logits: (N, classes) float32.
        targets: (N,) int64, -1 unlabelled; those are left out.
        scale: not used.

    Raises:
        DataError: no sample is labelled.
    """
    del scale
    known = targets != UNLABELLED
    if not known.any():
        raise DataError(f"task {spec.name!r}: none of {len(targets)} samples is labelled, so there is nothing to score")
    truth = targets[known]
    right = logits[known].argmax(axis=1) == truth
    recalls = [right[truth == label].mean() for label in np.unique(truth)]
    return {"accuracy": float(right.mean()), "balanced_accuracy": float(np.mean(recalls))}


def side(record: Mapping[str, str]) -> F4:
    """Return (0,) float32: a plain image task has no inputs of the device's own."""
    del record
    return np.zeros(0, np.float32)


def simulate(spec: TaskSpec, rng: np.random.Generator, n: int) -> Samples:
    """Draw n labelled images: each class has a stripe direction and a brightness, under noise.

    Raises:
        DataError: the task's input is not an image.
    """
    if not isinstance(spec.input, ImageInput):
        raise DataError(f"task {spec.name!r}: classify simulates images, and its input is a series")
    height, width, channels = spec.input.raw_shape
    targets = rng.integers(0, len(spec.labels), n)
    angle = np.pi * targets / len(spec.labels)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    along = np.cos(angle)[:, None, None] * x + np.sin(angle)[:, None, None] * y
    stripes = np.sin(2 * np.pi * (4 * along + rng.random((n, 1, 1))))
    level = 0.3 + 0.4 * targets / len(spec.labels)
    images = level[:, None, None, None] + 0.15 * stripes[..., None] + rng.normal(0, 0.08, (n, height, width, channels))
    return Samples.of((255 * images.clip(0, 1)).astype(np.uint8), targets.astype(np.int64))
