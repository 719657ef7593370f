"""The plain mean and the control without devices."""

from __future__ import annotations

import numpy as np
import pytest

from broker_server.distil_job import DistilSettings
from broker_server.strategies.base import Opinion
from broker_server.strategies.mean import Mean
from broker_server.strategies.self_training import SelfTraining
from edge_protocol.ids import DeviceId
from tests.broker_server.strategies.ballots import class_votes, forecast_votes

SHARED = Opinion(np.array([[0.5, 0.3, 0.2]], np.float32))


def test_mean_by_hand() -> None:
    """Votes for 0 and 1 at level 1 (0.7) average to (0.425, 0.425, 0.15); density and age do not matter."""
    strategy = Mean(SHARED, DistilSettings())
    strategy.add(DeviceId("a"), class_votes([0], 1, 1))
    strategy.add(DeviceId("b"), class_votes([1], 1, 6), age=7)
    np.testing.assert_allclose(strategy.teacher().value, [[0.425, 0.425, 0.15]], atol=1e-6)


def test_mean_of_forecasts_widens_with_disagreement() -> None:
    """Means 0 and 2 of spread 1 fuse to mean 1 and variance 2."""
    strategy = Mean(Opinion(np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32)), DistilSettings())
    strategy.add(DeviceId("a"), forecast_votes([0.0]))
    strategy.add(DeviceId("b"), forecast_votes([2.0]))
    teacher = strategy.teacher()
    assert teacher.value.item() == pytest.approx(1)
    assert teacher.spread is not None
    assert teacher.spread.item() == pytest.approx(2**0.5)


def test_without_ballots_the_shared_model_speaks() -> None:
    """Nobody reported: the teacher is the shared model."""
    assert Mean(SHARED, DistilSettings()).teacher() is SHARED


def test_the_control_ignores_every_ballot() -> None:
    """Self-training hears no device."""
    strategy = SelfTraining(SHARED, DistilSettings())
    strategy.add(DeviceId("a"), class_votes([2]))
    assert strategy.teacher() is SHARED
