"""The control without devices."""

from __future__ import annotations

import numpy as np

from broker_server.distil_job import DistilSettings
from broker_server.strategies.base import Opinion
from broker_server.strategies.self_training import SelfTraining
from edge_protocol.ids import DeviceId
from tests.broker_server.strategies.ballots import class_votes


def test_the_control_ignores_every_ballot() -> None:
    """Self-training hears no device."""
    shared = Opinion(np.array([[0.5, 0.3, 0.2]], np.float32))
    strategy = SelfTraining(shared, DistilSettings())
    strategy.add(DeviceId("a"), class_votes([2]))
    assert strategy.teacher() is shared
