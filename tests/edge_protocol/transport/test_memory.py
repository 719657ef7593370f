"""What only the in-process broker can do: faults on demand, and a full inbox that does not block."""

from __future__ import annotations

from queue import Queue
from typing import Any

import pytest

from edge_protocol.errors import LocalProtocolError
from edge_protocol.transport.base import Connected, Received, Refused
from edge_protocol.transport.memory import MemoryBroker, MemoryTransport


def pair(broker: MemoryBroker, room: int = 100) -> tuple[MemoryTransport, Queue[Any]]:
    """A connected transport on `a/+`, and its inbox."""
    inbox: Queue[Any] = Queue(room)
    transport = MemoryTransport(broker, inbox)
    transport.subscribe(["a/+"])
    transport.start()
    transport.start()
    assert inbox.get_nowait() == Connected(1)
    return transport, inbox


def test_a_fault_loses_repeats_and_changes() -> None:
    """The fault function decides what each delivery becomes."""
    broker = MemoryBroker(fault=lambda topic, payload: {b"lose": [], b"twice": [payload] * 2}.get(payload, [b"?"]))
    transport, inbox = pair(broker)
    for payload in (b"lose", b"twice", b"other"):
        assert transport.publish("a/1", payload)
    assert [inbox.get_nowait().payload for _ in range(3)] == [b"twice", b"twice", b"?"]
    assert inbox.empty()


def test_a_lost_store_forgets_what_was_retained() -> None:
    """As a broker killed without persistence does."""
    broker = MemoryBroker()
    transport, _ = pair(broker)
    transport.publish("a/1", b"kept", retain=True)
    broker.lose_store()
    _, late = pair(broker)
    assert late.empty()


def test_overlapping_filters_deliver_once() -> None:
    """Two filters that cover a topic make one delivery, and a message to nobody is taken."""
    broker = MemoryBroker()
    transport, inbox = pair(broker)
    transport.subscribe(["a/1", "#"])
    transport.publish("a/1", b"x")
    transport.publish("b", b"y")
    assert [inbox.get_nowait().topic for _ in range(2)] == ["a/1", "b"]
    assert inbox.empty()


def test_a_full_inbox_drops_and_counts() -> None:
    """A simulation with a small inbox goes on, and learns what it lost."""
    transport, inbox = pair(MemoryBroker(), room=1)
    for number in range(3):
        transport.publish("a/1", b"%d" % number)
    assert inbox.get_nowait() == Received("a/1", b"0")
    transport.publish("a/1", b"3")
    assert isinstance(inbox.get_nowait(), Refused)


def test_a_message_above_the_limit_is_refused() -> None:
    """As the transport over MQTT does, link or no link."""
    transport = MemoryTransport(MemoryBroker(), Queue())
    transport.max_packet_bytes = 10
    transport.check("a/1", bytes(7))
    with pytest.raises(LocalProtocolError, match="exceeds the broker's 10") as refused:
        transport.publish("a/1", bytes(8))
    assert refused.value.reason == "oversized"
