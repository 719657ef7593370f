"""Class means: what they are, of which classes, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from edge_models.prototypes import class_prototypes
from edge_protocol.errors import DataError


def test_means_by_hand() -> None:
    """Features 1 and 3 of class 0 have the mean 2; labels of no class, and features of them, do not matter."""
    features = np.array([[1, 0], [3, 4], [9, 9], [9, 9]], np.float32)
    found = class_prototypes(features, np.array([0, 0, -1, 2]), 2, k=1)
    np.testing.assert_array_equal(found.means, [[2, 2], [0, 0]])
    assert found.held.tolist() == [1, 0]
    assert found.means.dtype == np.float32


def test_a_class_of_fewer_than_k_samples_is_not_given() -> None:
    """Two of class 0 and three of class 1 with k = 3: nothing of class 0 is in the means."""
    found = class_prototypes(np.ones((5, 4), np.float32), np.array([0, 0, 1, 1, 1]), 3, k=3)
    assert found.held.tolist() == [0, 1, 0]
    assert found.means.sum(axis=1).tolist() == [0, 4, 0]


def test_a_mean_is_right_to_the_last_bit_of_its_features() -> None:
    """A million large features that differ by little: summed in double precision, however many there are."""
    features = np.full((1_000_000, 1), 1000.25, np.float32)
    assert class_prototypes(features, np.zeros(len(features), np.int64), 1, k=1).means.item() == 1000.25


def test_nobodys_features_have_no_means() -> None:
    """Without samples no class is given, and no mean is NaN."""
    found = class_prototypes(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), 3, k=1)
    assert not found.held.any()
    assert (found.means == 0).all()


@pytest.mark.parametrize(
    ("features", "labels", "said"),
    [
        (np.ones((2, 3), np.float32), 3, "not aligned"),
        (np.ones(3, np.float32), 3, "not aligned"),
        (np.array([[np.nan]], np.float32), 1, "NaN"),
        (np.array([[np.inf]], np.float32), 1, "NaN or infinity"),
    ],
)
def test_features_that_are_none_are_refused(features: np.ndarray, labels: int, said: str) -> None:
    """More labels than features, no feature vectors, NaN and infinity: the message says which."""
    with pytest.raises(DataError, match=said):
        class_prototypes(features, np.zeros(labels, np.int64), 2, k=1)
