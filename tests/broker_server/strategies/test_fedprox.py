"""FedAvg with a pull to the start."""

from __future__ import annotations

import numpy as np

from broker_server.strategies.fedavg import FedAvg
from broker_server.strategies.fedprox import MU, FedProx
from edge_models.local_settings import LocalSettings
from edge_protocol.ids import DeviceId

START = {"trunk.w": np.zeros(1, np.float32)}


def test_the_rule_owns_mu() -> None:
    """Whatever the settings say, devices are pulled with the rule's own mu."""
    assert [phase.proximal for phase in FedProx(START).phases(LocalSettings(proximal=5))] == [MU]
    assert [phase.proximal for phase in FedProx(START, mu=0.5).phases(LocalSettings())] == [0.5]


def test_the_server_s_side_is_fedavg_s() -> None:
    """The same states give the same mean."""
    rules = FedProx(START), FedAvg(START)
    for rule in rules:
        rule.add(DeviceId("a"), {"trunk.w": np.array([3], np.float32)}, 1)
        rule.add(DeviceId("b"), {"trunk.w": np.array([6], np.float32)}, 2)
    np.testing.assert_equal(rules[0].result(), rules[1].result())
