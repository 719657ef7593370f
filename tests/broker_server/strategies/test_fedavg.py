"""Averaging of whole states."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from broker_server.strategies.fedavg import FedAvg
from edge_models.local_settings import LocalSettings
from edge_protocol.ids import DeviceId


def test_one_round_by_hand() -> None:
    """States 1 and 5 of 30 and 10 examples average to 2; whole numbers are rounded."""
    start = {"trunk.w": np.zeros(2, np.float32), "trunk.seen": np.array(0), "head.bias": np.zeros(1, np.float32)}
    rule = FedAvg(start)
    one = {"trunk.w": np.array([1, 0], np.float32), "trunk.seen": np.array(3), "head.bias": np.ones(1, np.float32)}
    other = {"trunk.w": np.array([5, 4], np.float32), "trunk.seen": np.array(4), "head.bias": np.ones(1, np.float32)}
    rule.add(DeviceId("a"), one, 30)
    rule.add(DeviceId("b"), other, 10)
    result = rule.result()
    np.testing.assert_array_equal(result["trunk.w"], [2, 1])
    np.testing.assert_array_equal(result["head.bias"], [1])
    assert result["trunk.seen"] == 3


@given(st.lists(st.tuples(st.floats(-1e6, 1e6, width=32), st.integers(1, 10_000)), min_size=1, max_size=8))
def test_the_mean_lies_among_the_states(sent: list[tuple[float, int]]) -> None:
    """No device pulls the mean beyond what was sent."""
    rule = FedAvg({"trunk.w": np.zeros(1, np.float32)})
    for at, (value, examples) in enumerate(sent):
        rule.add(DeviceId(f"d{at}"), {"trunk.w": np.array([value], np.float32)}, examples)
    values = [value for value, _ in sent]
    assert min(values) - 0.1 <= rule.result()["trunk.w"].item() <= max(values) + 0.1


def test_devices_train_as_they_are_told() -> None:
    """One phase, nothing added."""
    assert FedAvg({}).phases(LocalSettings(epochs=3)) == (LocalSettings(epochs=3),)
