"""Clipped changes of one tier, with momentum from round to round."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_server.strategies.trunk_sharing import Drift, TrunkSharing
from edge_models.students import build_student
from edge_models.students.arrays import arrays_of
from edge_models.tasks import load_task
from edge_protocol.errors import RemoteProtocolError
from edge_protocol.ids import DeviceId


def state(first: float = 0.0, second: float = 0.0) -> dict[str, np.ndarray]:
    """Two tensors of one number each, far from 0, so that the first radius is long."""
    return {"trunk.a": np.array([100 + first], np.float32), "trunk.b": np.array([[100 + second]], np.float32)}


def share(*changes: tuple[float, float], drift: Drift | None = None, momentum: float = 0.0) -> TrunkSharing:
    """One round from `state()` in which devices moved by these changes."""
    rule = TrunkSharing(state(), drift, momentum)
    for at, change in enumerate(changes):
        rule.add(DeviceId(f"d{at}"), state(*change), 1)
    return rule


def moved(rule: TrunkSharing) -> list[float]:
    """By how much the weights have moved."""
    result = rule.result()
    return [float(result["trunk.a"][0]) - 100, float(result["trunk.b"][0, 0]) - 100]


def test_within_the_radius_it_is_the_plain_mean() -> None:
    """Short changes count in full, whatever number of examples is claimed."""
    rule = TrunkSharing(state(), momentum=0)
    rule.add(DeviceId("a"), state(1, 0), 1)
    rule.add(DeviceId("b"), state(0, 3), 1_000_000)
    assert moved(rule) == pytest.approx([0.5, 1.5], rel=1e-4)


def test_a_long_change_is_cut_to_the_median_of_the_last_round() -> None:
    """Lengths 3, 4, 5 leave radius 4; next round a change of (300, 400) counts as (2.4, 3.2), shared by two devices."""
    first = share((3, 0), (0, 4), (3, 4))
    assert first.drift().radius == pytest.approx(4)
    second = share((300, 400), (0, 0), drift=first.drift())
    assert moved(second) == pytest.approx([1.2, 1.6], rel=1e-4)


def test_the_first_round_is_bounded_by_the_weights_themselves() -> None:
    """Nobody has sent a length yet: 1e30 moves the mean of two by half the weights' own length."""
    assert moved(share((1e30, 0), (0, 0)))[0] == pytest.approx(np.hypot(100, 100) / 2, rel=1e-4)


@given(st.permutations(range(5)), st.integers(0, 2**32 - 1))
def test_liars_move_the_mean_by_no_more_than_their_number_times_the_radius(order: list[int], seed: int) -> None:
    """Two liars of five shift the result by at most 2/5 of twice the radius, in any order of arrival."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(size=(5, 2))
    liars = honest.copy()
    liars[:2] = rng.normal(size=(2, 2)) * 10.0 ** rng.integers(0, 12)
    drift = Drift(radius=1.0)
    truth = np.array(moved(share(*map(tuple, honest), drift=drift)))
    attacked = np.array(moved(share(*map(tuple, liars[list(order)]), drift=drift)))
    assert np.linalg.norm(truth - attacked) <= 2 / 5 * 2 + 1e-4


def test_momentum_adds_up_what_rounds_agree_on() -> None:
    """Two equal rounds at momentum 0.5 move by 1, then by 1.5; a change of direction forgets."""
    first = share((1, 0), momentum=0.5)
    second = share((1, 0), drift=first.drift(), momentum=0.5)
    assert moved(first)[0] == pytest.approx(1, rel=1e-4)
    assert moved(second)[0] == pytest.approx(1.5, rel=1e-4)
    assert moved(share((-1, 0), drift=second.drift(), momentum=0.5))[0] == pytest.approx(-0.25, rel=1e-3)


def test_a_round_without_devices_moves_nothing_and_keeps_the_drift() -> None:
    """No device, no momentum either: the weights stay as they are."""
    drift = Drift({"trunk.a": np.ones(1), "trunk.b": np.ones((1, 1))}, 2.0)
    rule = share(drift=drift)
    np.testing.assert_equal(rule.result(), state())
    assert rule.drift() is drift


def test_devices_that_learnt_nothing_leave_the_radius() -> None:
    """A median of 0 would shut out everybody for ever."""
    assert share((0, 0), (0, 0), drift=Drift(radius=3.0)).drift().radius == 3.0


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("trunk.a", np.array([np.nan], np.float32), "not-finite"),
        ("trunk.a", np.array([-np.inf], np.float32), "not-finite"),
        ("trunk.a", np.zeros(2, np.float32), "wrong-shape"),
        ("trunk.b", np.zeros((1, 1), np.float64), "wrong-dtype"),
        ("head.weight", np.zeros(1, np.float32), "wrong-names"),
    ],
)
def test_hostile_states_are_refused(name: str, value: np.ndarray, reason: str) -> None:
    """The message names the device, and neither the mean nor the next radius knows of it."""
    rule = share((1, 1))
    with pytest.raises(RemoteProtocolError, match=r"^evil ") as caught:
        rule.add(DeviceId("evil"), {**state(), name: value}, 1)
    assert caught.value.reason == reason
    assert moved(rule) == moved(share((1, 1)))
    assert rule.drift().radius == share((1, 1)).drift().radius


def test_a_second_state_counts_neither_in_the_mean_nor_in_the_radius() -> None:
    """Nobody can pull the median by sending twice."""
    rule = share((1, 0))
    with pytest.raises(RemoteProtocolError, match="d0 has sent"):
        rule.add(DeviceId("d0"), state(9, 9), 1)
    assert rule.drift().radius == pytest.approx(1, rel=1e-4)


def test_batch_statistics_stay_on_the_device() -> None:
    """Momentum could push a variance below zero, so none travels; all weights of a CNN do."""
    start = arrays_of(build_student(load_task("vehicle"), "nano"))
    sent = set(TrunkSharing(start).part(start))
    assert set(start) - sent == {name for name in start if "running_" in name or "num_batches" in name}
    assert "trunk.0.conv.weight" in sent


def test_momentum_of_one_is_refused() -> None:
    """The weights would never come to rest."""
    with pytest.raises(ValueError, match="never come to rest"):
        TrunkSharing(state(), momentum=1)
