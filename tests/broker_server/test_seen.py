"""Answers to durable messages: remembered, and forgotten by age and number."""

from __future__ import annotations

from broker_server.records import SeenMessage
from broker_server.seen import SeenMessages


def seen(number: int, at_s: float) -> SeenMessage:
    """An answer given at a time."""
    return SeenMessage(number.to_bytes(16, "big"), True, "", at_s)


def test_the_oldest_go_first_when_there_are_too_many() -> None:
    """The limit holds, and the newest stay."""
    kept = SeenMessages(keep_s=1e9, limit=3)
    kept.restore(seen(n, n) for n in range(10))
    assert len(kept) == 3
    assert [kept.get(n.to_bytes(16, "big")) is not None for n in (6, 7, 9)] == [False, True, True]


def test_what_is_too_old_is_forgotten() -> None:
    """Age is counted from the newest answer."""
    kept = SeenMessages(keep_s=10, limit=100)
    kept.restore([seen(1, 0), seen(2, 5), seen(3, 12)])
    assert kept.get((1).to_bytes(16, "big")) is None
    assert kept.get((2).to_bytes(16, "big")) == seen(2, 5)
