"""Noisy votes of shards and what they cost."""

from __future__ import annotations

import numpy as np
import pytest

from edge_models.privacy import (
    count_votes,
    epsilon_of,
    held_classes,
    most_right,
    private_odds,
    shards_of,
    sigma_for,
    votes_cost,
)
from edge_protocol.errors import DataError


def test_only_classes_with_enough_examples_are_spoken_of() -> None:
    """Two examples are too few for k = 3; labels outside the classes are nobody's."""
    labels = np.array([0, 0, 0, 1, 1, -1, 9])
    assert held_classes(labels, 3, 3).tolist() == [1, 0, 0]


def test_a_sample_moves_one_shard_only() -> None:
    """The shard of a sample depends on its bytes alone, and copies share it."""
    raw = np.random.default_rng(0).integers(0, 256, (200, 4, 4), dtype=np.uint8)
    shards = shards_of(raw, 8)
    np.testing.assert_array_equal(shards_of(raw[50:], 8), shards[50:])
    assert set(shards.tolist()) == set(range(8))


def test_votes_are_counted_by_hand_and_one_shard_moves_two_counts() -> None:
    """A class that is not held gets no vote, low odds are silence, and changing a shard changes two counts by one."""
    odds = np.array([[[3, 0, 0]], [[0.2, 0.1, 0]], [[0, 0, 9]]], np.float32)
    held = np.array([1, 1, 0], np.uint8)
    counts = count_votes(odds, held)
    assert counts.tolist() == [[1, 0, 0, 2]]
    odds[1] = [[0, 5, 0]]
    assert np.abs(count_votes(odds, held) - counts).sum() == 2
    with pytest.raises(DataError, match="finite"):
        count_votes(odds * np.nan, held)


def test_without_noise_the_favourite_wins_and_with_much_anybody_does() -> None:
    """Ten shards agree on class 1: told always at sigma 0, about as often as the others at a huge sigma."""
    odds = np.zeros((10, 900, 2), np.float32)
    odds[..., 1] = 4
    held = np.ones(2, np.uint8)
    assert (private_odds(odds, held, 0.0).argmax(1) == 1).all()
    loud = private_odds(odds, held, 1e6, np.random.default_rng(1))
    assert 200 < (loud.sum(1) == 0).sum() < 400


def test_the_account_adds_up() -> None:
    """More noise costs less, more rounds more; the noise that is found keeps the promise; no query costs nothing."""
    assert votes_cost(0, 0) == epsilon_of(0, 1e-5) == 0
    assert epsilon_of(votes_cost(10, 0), 1e-5) == float("inf")
    assert epsilon_of(votes_cost(100, 50), 1e-5) < epsilon_of(votes_cost(100, 25), 1e-5)
    assert epsilon_of(votes_cost(100, 50), 1e-5) < epsilon_of(votes_cost(200, 50), 1e-5)
    sigma = sigma_for(2.0, 1e-5, 1000)
    assert 1.9 < epsilon_of(votes_cost(1000, sigma), 1e-5) <= 2.0
    assert most_right(0) == 0.5
    assert most_right(2.0) == pytest.approx(0.8808, abs=1e-4)
