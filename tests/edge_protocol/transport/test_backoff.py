"""Pauses before a connection attempt: bounded, growing, and never the same for two devices."""

from __future__ import annotations

from queue import Queue
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from edge_protocol.transport.backoff import pause_s
from edge_protocol.transport.mqtt import MqttTransport
from edge_protocol.transport.settings import BrokerSettings


@given(st.integers(0, 10_000), st.floats(0.5, 1.5), st.floats(0.1, 3600), st.integers(0, 2**32))
def test_a_pause_stays_within_its_bounds(attempt: int, first_s: float, limit_s: float, seed: int) -> None:
    """Between half and all of the exponential, and never above the limit, however many attempts."""
    whole = min(limit_s, first_s * 2.0 ** min(attempt, 32))
    assert whole / 2 <= pause_s(attempt, first_s, limit_s, Random(seed)) <= whole


def test_a_fleet_does_not_return_all_at_once() -> None:
    """Among 200 devices the shortest pauses differ, and spread over at least half a second."""
    firsts = {MqttTransport(BrokerSettings(), f"d{i}", Queue())._first_pause_s for i in range(200)}
    assert len(firsts) == 200
    assert max(firsts) - min(firsts) > 0.5
