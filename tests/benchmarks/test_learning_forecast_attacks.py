"""What forecasters can be made to say: every attack keeps the wire's rules, and moves the plain mean."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.learning.forecast_attacks import ATTACKS, attacked
from broker_server.distil_job import DistilSettings
from broker_server.strategies import make_strategy
from broker_server.strategies.base import Opinion
from edge_protocol.ids import DeviceId
from edge_protocol.votes import forecast_votes


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_a_report_like_any_other(attack: str) -> None:
    """Two of five lie, the wire takes what they say, and the mean of all is another one than of honest devices."""
    rng = np.random.default_rng(0)
    ones = np.ones((50, 3), np.float32)
    honest = make_strategy(DistilSettings(strategy="mean"), Opinion(0 * ones, ones))
    for at in range(5):
        mean = rng.normal(size=(50, 3)).astype(np.float32)
        honest.add(DeviceId(f"road-{at}"), forecast_votes(mean, ones))
    lied = attacked(honest, ATTACKS[attack], "mean", rng)
    moved = np.abs(lied.teacher().value - honest.teacher().value).max()
    assert (moved > 0.05) == (attack != "honest, as loud as can be")
