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


def test_what_arrived_is_kept_back_until_it_is_its_turn_and_then_comes_in_order() -> None:
    """The newest few are kept while the connection is made ready; those of a connection that is gone never come."""
    inbox: Queue[Any] = Queue()
    delivery = Delivery(inbox)
    for number in range(5):
        delivery.arrived(Received("a", b"%d" % number))
    delivery.deliver(keep=3)
    assert [inbox.get_nowait().payload for _ in range(inbox.qsize())] == [b"0", b"1"]
    delivery.owe(Connected(1))
    delivery.deliver()
    assert inbox.get_nowait() == Connected(1)
    assert [inbox.get_nowait().payload for _ in range(inbox.qsize())] == [b"2", b"3", b"4"]
    delivery.arrived(Received("a", b"5"))
    delivery.forget()
    delivery.deliver()
    assert inbox.empty()


class Faulty(Queue[Any]):
    """An inbox that cannot take one message."""

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Take an event, but for that one."""
        if item == Received("a", b"1"):
            raise RuntimeError("a bug")
        super().put(item, block, timeout)


def test_a_message_that_the_inbox_cannot_take_costs_no_other() -> None:
    """It is said, and what is behind it comes with the next turn."""
    inbox = Faulty()
    delivery = Delivery(inbox)
    for number in range(3):
        delivery.arrived(Received("a", b"%d" % number))
    delivery.deliver()
    delivery.deliver()
    got = [inbox.get_nowait() for _ in range(inbox.qsize())]
    assert got == [
        Received("a", b"0"),
        Refused("callback-failed", "RuntimeError('a bug')"),
        Received("a", b"2"),
    ]
