"""Ensembles by the mean of logits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_server.distil_job import DistilSettings
from broker_server.strategies.base import Opinion, SoftVotes
from broker_server.strategies.feddf import FedDf, softmax
from edge_protocol.ids import DeviceId

SHARED = Opinion(np.array([[0.5, 0.3, 0.2]], np.float32))
logits = st.lists(st.lists(st.floats(-6, 6), min_size=3, max_size=3), min_size=1, max_size=5)


def fused(*probabilities: np.ndarray) -> np.ndarray:
    """Fuse whole answers on some samples, sent in the order given."""
    strategy = FedDf(SHARED, DistilSettings())
    for at, value in enumerate(probabilities):
        strategy.add(DeviceId(f"d{at}"), SoftVotes(Opinion(value.astype(np.float32))))
    return strategy.teacher().value


@given(logits)
def test_it_is_the_softmax_of_the_mean_of_logits(rows: list[list[float]]) -> None:
    """Probabilities are enough: what a softmax forgets cancels."""
    values = [np.array([row]) for row in rows]
    teacher = fused(*(softmax(value) for value in values))
    np.testing.assert_allclose(teacher, softmax(np.mean(values, axis=0)), atol=1e-4)


@given(logits)
def test_the_order_of_arrival_does_not_matter(rows: list[list[float]]) -> None:
    """Devices sent backwards give the same teacher."""
    values = [softmax(np.array([row])) for row in rows]
    np.testing.assert_allclose(fused(*values), fused(*values[::-1]), atol=1e-6)


def test_a_certain_device_does_not_make_nan() -> None:
    """Probability 0 is a strong veto, not an infinite one: two certain devices that disagree leave a tie."""
    teacher = fused(np.array([[1.0, 0, 0]]), np.array([[0, 1.0, 0]]))
    np.testing.assert_allclose(teacher[0, :2], 0.5, atol=1e-3)
    assert teacher[0, 2] < 1e-3


def test_forecasts_are_weighted_by_precision() -> None:
    """Mean 0 of spread 1 and mean 5 of spread 2: precision 1 and 1/4, so mean 1 and precision 5/8."""
    one = np.ones((1, 1), np.float32)
    strategy = FedDf(Opinion(0 * one, one), DistilSettings())
    strategy.add(DeviceId("a"), SoftVotes(Opinion(0 * one, one)))
    strategy.add(DeviceId("b"), SoftVotes(Opinion(5 * one, 2 * one)))
    teacher = strategy.teacher()
    assert teacher.value.item() == pytest.approx(1)
    assert teacher.spread is not None
    assert teacher.spread.item() == pytest.approx(1.6**0.5)


def test_without_ballots_the_shared_model_speaks() -> None:
    """Nobody reported: the teacher is the shared model."""
    assert FedDf(SHARED, DistilSettings()).teacher() is SHARED
