"""A bounded inbox that is full: messages are dropped and counted, everything else is owed and comes first."""

from __future__ import annotations

import threading
from queue import Queue
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edge_protocol.transport.base import Connected, Disconnected, Received, Refused
from edge_protocol.transport.delivery import Delivery


def test_what_must_be_known_comes_before_what_is_newer() -> None:
    """A full inbox holds back Disconnected, drops messages, and gives both back in order once there is room."""
    inbox: Queue[Any] = Queue(1)
    delivery = Delivery(inbox, patience_s=0)
    for event in (Connected(1), Disconnected("cut"), Received("a", b"1"), Received("a", b"2")):
        delivery.put(event)
    got = []
    for _ in range(3):
        got.append(inbox.get_nowait())
        delivery.settle()
    assert got[:2] == [Connected(1), Disconnected("cut")]
    assert got[2].detail.startswith("2 messages")
    delivery.put(Received("a", b"3"))
    assert inbox.get_nowait() == Received("a", b"3")


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 4))
def test_every_message_is_delivered_or_counted(puts: list[bool], room: int) -> None:
    """Whatever the order of puts and gets: delivered plus counted messages equal those put, in order."""
    inbox: Queue[Any] = Queue(room)
    delivery, got, sent = Delivery(inbox, patience_s=0), [], 0
    for put in puts:
        if put:
            delivery.put(Received("a", b"%d" % sent))
            sent += 1
        elif not inbox.empty():
            got.append(inbox.get_nowait())
    while True:
        delivery.settle()
        if inbox.empty():
            break
        got.append(inbox.get_nowait())
    numbers = [int(event.payload) for event in got if isinstance(event, Received)]
    counted = sum(int(event.detail.split()[0]) for event in got if isinstance(event, Refused))
    assert numbers == sorted(set(numbers))
    assert len(numbers) + counted == sent


def test_patience_waits_for_room() -> None:
    """With room made in time by another thread nothing is dropped."""
    inbox: Queue[Any] = Queue(1)
    delivery = Delivery(inbox, patience_s=10)
    delivery.put(Received("a", b"1"))
    taker = threading.Thread(target=inbox.get)
    taker.start()
    delivery.put(Received("a", b"2"))
    taker.join()
    assert inbox.get_nowait().payload == b"2"
