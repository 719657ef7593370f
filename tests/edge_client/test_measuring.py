"""The brain takes a request to measure for its own task, and for no other."""

from __future__ import annotations

from edge_client.effects import MeasureLatency
from edge_client.measuring import asked
from edge_protocol import messages as m
from edge_protocol.effects import Drop
from tests.edge_client.core_driver import SPEC

HEADER = m.Header("sim", "server", bytes(range(16)), b"bootboot", 1, 1.0, clock_trusted=True)


def test_a_request_names_the_message_that_is_answered() -> None:
    """Its id goes into the effect, and so into the answer; another task's request is dropped."""
    assert asked(HEADER, m.Measure(SPEC.name, 2.5), SPEC) == [MeasureLatency(bytes(range(16)), 2.5)]
    (dropped,) = asked(HEADER, m.Measure("speed", 2.5), SPEC)
    assert isinstance(dropped, Drop)
    assert dropped.reason == "wrong-task"
