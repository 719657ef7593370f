"""What `benchmarks.learning.newcomer` holds a newcomer's own head against."""

from __future__ import annotations

import numpy as np

from benchmarks.learning.newcomer import (
    BEST,
    BIAS,
    CHOSEN,
    NEAREST,
    SHARED,
    Plan,
    clusters,
    gain,
    heads_of,
    merged,
    rows_of,
)
from edge_models.head_weights import HeadWeights


def head(*favoured: int) -> HeadWeights:
    """A head that takes every sample for one of some classes."""
    bias = np.zeros(6, np.float32)
    bias[list(favoured)] = 3
    return HeadWeights(np.zeros((6, 64), np.float32), bias)


def test_devices_that_hold_the_same_classes_are_one_cluster() -> None:
    """Every device is in exactly one, and those that are alike are together."""
    held = np.repeat(np.eye(3, 6, dtype=np.float32), [2, 4, 1], axis=0)
    found = clusters(held, 3, np.random.default_rng(0))
    assert sorted(tuple(np.flatnonzero(members)) for members in found) == [(0, 1), (2, 3, 4, 5), (6,)]
    np.testing.assert_array_equal(np.sum(found, axis=0), 1)


def test_the_nearest_cluster_is_the_one_that_expects_the_newcomer_s_samples() -> None:
    """It is chosen by the labelled samples, and the default choice is none of the clusters'."""
    theirs = [head(0), head(4), head(1, 2)]
    labels = np.array([4, 4, 4, 1])
    found = heads_of(np.zeros((4, 64), np.float32), labels, head(), theirs)
    assert found[NEAREST] is theirs[1]
    assert found[CHOSEN].bias.argmax() == 4
    np.testing.assert_array_equal(found[CHOSEN].bias, found[BIAS].bias)


def test_accuracies_of_all_newcomers_make_a_row_and_a_gain() -> None:
    """A gain is in points, of the mean or of the worst device."""
    devices = [{8: {SHARED: [0.5], CHOSEN: [0.75], BEST: [0.5]}}, {8: {SHARED: [0.25], CHOSEN: [0.25], BEST: [0.5]}}]
    found = merged(devices)
    assert found == {8: {SHARED: [0.5, 0.25], CHOSEN: [0.75, 0.25], BEST: [0.5, 0.5]}}
    assert gain([found], 8, SHARED, np.mean) == 12.5
    assert gain([found], 8, SHARED, np.min) == 0
    assert rows_of([found], Plan(counts=(8,)))[1:] == [
        [SHARED, "37.5, 25.0"],
        [CHOSEN, "50.0, 25.0"],
        [BEST, "50.0, 50.0"],
    ]
