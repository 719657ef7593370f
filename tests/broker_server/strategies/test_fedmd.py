"""The mean of class scores, and the same under its first name."""

from __future__ import annotations

import numpy as np
import pytest

from broker_server.distil_job import DistilSettings
from broker_server.strategies import make_strategy
from broker_server.strategies.base import Opinion, SoftVotes
from broker_server.strategies.fedmd import FedMd
from edge_protocol.ids import DeviceId
from tests.broker_server.strategies.ballots import class_votes

SHARED = Opinion(np.array([[0.5, 0.3, 0.2]], np.float32))
A, B, D = DeviceId("a"), DeviceId("b"), DeviceId("d")


def says(*probabilities: float) -> SoftVotes:
    """A whole answer on one sample."""
    return SoftVotes(Opinion(np.array([probabilities], np.float32)))


def test_mean_by_hand() -> None:
    """Every device counts the same, however old."""
    strategy = FedMd(SHARED, DistilSettings())
    strategy.add(A, says(0.6, 0.4, 0))
    strategy.add(B, says(0.2, 0, 0.8), age=7)
    np.testing.assert_allclose(strategy.teacher().value, [[0.4, 0.2, 0.4]], atol=1e-6)


def test_levels_are_averaged_as_the_probabilities_they_stand_for() -> None:
    """Votes for 0 and 1 at level 1 (0.7) average to (0.425, 0.425, 0.15); density and age do not matter."""
    strategy = FedMd(SHARED, DistilSettings())
    strategy.add(A, class_votes([0], 1, 1))
    strategy.add(B, class_votes([1], 1, 6), age=7)
    np.testing.assert_allclose(strategy.teacher().value, [[0.425, 0.425, 0.15]], atol=1e-6)


def test_a_second_ballot_replaces_the_first_in_any_order() -> None:
    """Two devices, one of which spoke twice, in two orders: the same teacher, bit for bit."""
    teachers = []
    for order in (
        ((A, says(1, 0, 0)), (B, says(0.1, 0.2, 0.7)), (A, says(0.3, 0.3, 0.4))),
        (
            (A, says(0.3, 0.3, 0.4)),
            (B, says(0.1, 0.2, 0.7)),
        ),
    ):
        strategy = FedMd(SHARED, DistilSettings())
        for device, votes in order:
            strategy.add(device, votes)
        teachers.append(strategy.teacher().value)
    np.testing.assert_array_equal(*teachers)


def test_forecasts_widen_with_disagreement() -> None:
    """Means 0 and 2 of spread 1 fuse to mean 1 and variance 2."""
    one = np.ones((1, 1), np.float32)
    strategy = FedMd(Opinion(0 * one, one), DistilSettings())
    strategy.add(A, SoftVotes(Opinion(0 * one, one)))
    strategy.add(B, SoftVotes(Opinion(2 * one, one)))
    teacher = strategy.teacher()
    assert teacher.value.item() == pytest.approx(1)
    assert teacher.spread is not None
    assert teacher.spread.item() == pytest.approx(2**0.5)


def test_without_ballots_the_shared_model_speaks() -> None:
    """Nobody reported: the teacher is the shared model."""
    assert FedMd(SHARED, DistilSettings()).teacher() is SHARED


def test_it_is_still_known_as_mean() -> None:
    """A configuration from before keeps its meaning."""
    assert type(make_strategy(DistilSettings(strategy="mean"), SHARED)) is FedMd
