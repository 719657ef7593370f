"""Roadcast's own rule: by hand, and by properties that hold whatever devices say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_server.distil_job import DistilSettings
from broker_server.strategies.base import Opinion
from broker_server.strategies.feddistill import FedDistill
from edge_protocol.ids import DeviceId
from edge_protocol.messages import ClassVotes
from tests.broker_server.strategies.ballots import class_votes, forecast_votes

SETTINGS = DistilSettings(shared_share=0.2, device_cap=0.5, half_life=2.0)
SHARED = Opinion(np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], np.float32))
FORECAST = Opinion(np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32))

ballots = st.builds(
    class_votes,
    st.lists(st.integers(0, 2), min_size=2, max_size=2),
    st.floats(0, 1),
    st.floats(0, 1),
    st.lists(st.integers(0, 1), min_size=3, max_size=3),
)


def teacher(*votes: ClassVotes, ages: tuple[int, ...] = (), settings: DistilSettings = SETTINGS) -> np.ndarray:
    """Fuse ballots of devices d0, d1, …; return the teacher's probabilities."""
    strategy = FedDistill(SHARED, settings)
    for at, vote in enumerate(votes):
        strategy.add(DeviceId(f"d{at}"), vote, ages[at] if ages else 0)
    return strategy.teacher().value


def test_shares_by_hand() -> None:
    """Two sure devices get 0.4 each, the shared model its 0.2."""
    fused = teacher(class_votes([0, 0]), class_votes([1, 1]))
    np.testing.assert_allclose(
        fused[0], 0.4 * np.array([1, 0, 0]) + 0.4 * np.array([0, 1, 0]) + 0.2 * SHARED.value[0], atol=1e-6
    )


def test_a_device_alone_is_capped_and_the_rest_goes_to_the_shared_model() -> None:
    """One sure device gets (1 - 0.2) · 0.5, the shared model 0.6."""
    np.testing.assert_allclose(teacher(class_votes([2, 2]))[0], [0.3, 0.18, 0.52], atol=1e-6)


def test_samples_that_nobody_knows_stay_with_the_shared_model() -> None:
    """Density 0 everywhere: the teacher is the shared model; so it is when nobody reports."""
    np.testing.assert_allclose(teacher(class_votes([2, 2], density=0)), SHARED.value, atol=1e-6)
    np.testing.assert_allclose(teacher(), SHARED.value, atol=1e-6)


def test_age_halves_the_weight_each_half_life() -> None:
    """A ballot two rounds old weighs as much as a fresh one of half the density."""
    old = teacher(class_votes([2, 2]), ages=(2,), settings=DistilSettings(device_cap=1, half_life=2))
    faint = teacher(class_votes([2, 2], density=0.5), settings=DistilSettings(device_cap=1, half_life=2))
    np.testing.assert_allclose(old, faint, atol=2e-3)


def test_a_device_that_holds_no_likely_class_weighs_little() -> None:
    """On a sample that the shared model takes for class 2, one that holds 2 pulls more than one that does not."""
    pull = [np.abs(teacher(class_votes([0, 0], held=held)) - SHARED.value)[1].sum() for held in ([1, 1, 0], [1, 1, 1])]
    assert pull[0] < 0.5 * pull[1]


@given(st.lists(ballots, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(votes: list[ClassVotes], random: object) -> None:
    """Any order of the same ballots gives the same teacher, bit for bit."""
    order = list(range(len(votes)))
    random.shuffle(order)  # type: ignore[attr-defined]
    strategies = FedDistill(SHARED, SETTINGS), FedDistill(SHARED, SETTINGS)
    for strategy, sequence in zip(strategies, (range(len(votes)), order), strict=True):
        for at in sequence:
            strategy.add(DeviceId(f"d{at}"), votes[at])
    np.testing.assert_array_equal(strategies[0].teacher().value, strategies[1].teacher().value)


@given(st.lists(ballots, min_size=0, max_size=5), ballots)
def test_a_second_ballot_replaces_the_first(others: list[ClassVotes], first: ClassVotes) -> None:
    """A device that votes twice counts once, with its last word."""
    last = class_votes([1, 2])
    strategy = FedDistill(SHARED, SETTINGS)
    for vote in (first, last):
        strategy.add(DeviceId("z"), vote)
    for at, vote in enumerate(others):
        strategy.add(DeviceId(f"d{at}"), vote)
    assert len(strategy) == len(others) + 1
    np.testing.assert_allclose(strategy.teacher().value, teacher(*others, last), atol=1e-6)


@given(st.lists(ballots, min_size=0, max_size=5), ballots, ballots)
def test_no_device_moves_the_teacher_by_more_than_its_cap(
    others: list[ClassVotes], one: ClassVotes, other: ClassVotes
) -> None:
    """Whatever a device says, in votes, confidence, density or held classes, its own share stays under the cap."""
    share = (1 - SETTINGS.shared_share) * SETTINGS.device_cap
    strategy = FedDistill(SHARED, SETTINGS)
    for at, vote in enumerate([one, *others]):
        strategy.add(DeviceId(f"d{at}"), vote)
    total = np.maximum(sum(strategy.weight(ballot) for ballot in strategy.ballots()), 1)
    for ballot in strategy.ballots():
        assert (strategy.weight(ballot) <= 1 + 1e-6).all()
    alone = np.abs(teacher(one) - teacher(other)).sum(1) / 2
    assert (alone <= share + 1e-6).all()
    assert (total >= 1).all()


@given(st.lists(ballots, max_size=6))
def test_the_teacher_is_a_distribution(votes: list[ClassVotes]) -> None:
    """Probabilities are at least 0 and sum to 1."""
    fused = teacher(*votes)
    assert (fused >= 0).all()
    np.testing.assert_allclose(fused.sum(1), 1, atol=1e-5)


def test_sharp_forecasts_count_more_up_to_the_floor() -> None:
    """Half the shared spread weighs four times as much; a spread of nearly 0 weighs no more than that."""
    strategy = FedDistill(FORECAST, DistilSettings(shared_share=0.2, device_cap=1.0))
    weights = []
    for spread in (2.0, 1.0, 0.5, 0.01):
        strategy.add(DeviceId("a"), forecast_votes([1.0], spread))
        weights.append(strategy.weight(next(strategy.ballots())).item())
    assert weights == pytest.approx([0.25, 1, 4, 4])


def test_forecasts_fuse_by_share_and_keep_their_disagreement() -> None:
    """One capped device at mean 1: share 0.4, so mean 0.4, and variance 1 + 0.4 - 0.16."""
    strategy = FedDistill(FORECAST, SETTINGS)
    strategy.add(DeviceId("a"), forecast_votes([1.0]))
    fused = strategy.teacher()
    assert fused.value.item() == pytest.approx(0.4)
    assert fused.spread is not None
    assert fused.spread.item() == pytest.approx(1.24**0.5)
