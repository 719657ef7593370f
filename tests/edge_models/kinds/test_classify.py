"""Scores of classifiers, against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edge_models.kinds import classify
from edge_models.tasks import load_task
from edge_protocol.errors import DataError

SPEC = load_task("vehicle")


def test_accuracy_and_balanced_accuracy_are_counted() -> None:
    """Three of four are right; the rare class, all wrong, halves the balanced one."""
    logits = np.eye(6, dtype=np.float32)[[0, 0, 0, 0, 2]]
    assert classify.score(SPEC, logits, np.array([0, 0, 0, 1, -1])) == {"accuracy": 0.75, "balanced_accuracy": 0.5}


def test_nothing_labelled_is_no_score() -> None:
    """Without a label there is an error, not an accuracy of zero."""
    with pytest.raises(DataError, match="none of 2"):
        classify.score(SPEC, np.zeros((2, 6), np.float32), np.array([-1, -1]))


def test_simulated_images_are_images_of_every_class() -> None:
    """Drawn images are uint8 RGB and differ between classes more than within."""
    samples = classify.simulate(SPEC, np.random.default_rng(0), 200)
    assert samples.raw.dtype == np.uint8
    assert set(samples.targets) == set(range(6))
    level = [samples.raw[samples.targets == label].mean() for label in range(6)]
    assert np.diff(level).min() > 5


def test_a_series_task_has_no_images() -> None:
    """Simulating images for a sensor is refused."""
    with pytest.raises(DataError, match="series"):
        classify.simulate(load_task("speed"), np.random.default_rng(0), 2)
