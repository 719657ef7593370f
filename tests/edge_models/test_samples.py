"""Samples stay aligned whatever is done to them."""

from __future__ import annotations

import numpy as np
import pytest

from edge_models.samples import Samples
from edge_protocol.errors import DataError


def images(n: int) -> Samples:
    """Return n images, the k-th filled with k and labelled k, the first unlabelled."""
    targets = np.arange(n)
    targets[:1] = -1
    return Samples.of(np.full((n, 2, 2, 3), np.arange(n)[:, None, None, None], np.uint8), targets)


def test_take_keeps_every_array_in_step() -> None:
    """Selected samples keep their own target, side and scale."""
    taken = images(5).take([3, 1])
    assert taken.targets.tolist() == [3, 1]
    assert taken.raw[:, 0, 0, 0].tolist() == [3, 1]
    assert taken.side.shape == (2, 0)
    assert taken.scale.tolist() == [[1, 1], [1, 1]]


def test_take_understands_masks_and_slices() -> None:
    """A mask and a slice select what they select in NumPy."""
    assert images(4).take(np.array([True, False, False, True])).targets.tolist() == [-1, 3]
    assert images(4).take(slice(1, 3)).targets.tolist() == [1, 2]


def test_concat_joins_in_order() -> None:
    """Joined samples are as many as their parts and in their order."""
    joined = Samples.concat([images(2), images(3)])
    assert len(joined) == 5
    assert joined.targets.tolist() == [-1, 1, -1, 1, 2]


def test_labelled_means_a_class_or_one_measured_horizon() -> None:
    """Unlabelled images and windows without a measured horizon are told apart."""
    assert images(3).labelled.tolist() == [False, True, True]
    windows = Samples.of(np.zeros((2, 3, 4), np.float32), np.array([[np.nan, 1], [np.nan, np.nan]], np.float32))
    assert windows.labelled.tolist() == [True, False]


def test_arrays_that_do_not_align_are_refused() -> None:
    """Arrays of different length never become samples."""
    with pytest.raises(DataError, match="3 of raw, 2 of targets"):
        Samples.of(np.zeros((3, 2)), np.zeros(2, np.int64))
    with pytest.raises(DataError, match="side"):
        Samples.of(np.zeros((3, 2)), side=np.zeros(3, np.float32))


def test_samples_of_two_tasks_do_not_join() -> None:
    """Joining nothing, or samples of another shape, says so."""
    with pytest.raises(DataError, match="cannot join 0"):
        Samples.concat([])
    with pytest.raises(DataError, match="cannot join 2"):
        Samples.concat([images(1), Samples.of(np.zeros((1, 12, 4), np.float32))])
