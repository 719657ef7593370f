"""Weighted means of class means."""

from __future__ import annotations

import numpy as np

from broker_server.strategies.fedproto import FedProto
from edge_models.prototypes import Prototypes
from edge_protocol.ids import DeviceId


def test_means_by_hand() -> None:
    """A class of 30 samples at 1 and 10 at 5 lies at 2; one that a single device holds lies where it says."""
    rule = FedProto(2, 1)
    rule.add(DeviceId("a"), Prototypes(np.array([[1], [0]], np.float32), np.array([1, 0], np.uint8)), np.array([30, 0]))
    rule.add(DeviceId("b"), Prototypes(np.array([[5], [7]], np.float32), np.array([1, 1], np.uint8)), np.array([10, 2]))
    result = rule.result()
    np.testing.assert_array_equal(result.means, [[2], [7]])
    assert result.held.tolist() == [1, 1]
