"""What is in the air, and what a broker that tells no limit was seen not to take."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_protocol.transport.in_flight import FORGET_S, PACKET_OVERHEAD, SLACK, STRIKES, InFlight


def die(flight: InFlight, *sizes: int, now: float = 0.0) -> str:
    """End a link under some messages."""
    for size in sizes:
        flight.sent(size)
    return flight.lost(now)


def test_a_message_above_the_told_limit_is_refused() -> None:
    """Packet overhead included, to the byte."""
    flight = InFlight(1024)
    assert flight.refusal(1024 - PACKET_OVERHEAD, 0.0) == ""
    assert "exceeds the broker's 1024" in flight.refusal(1025 - PACKET_OVERHEAD, 0.0)


def test_links_that_end_under_one_large_message_give_the_limit_away() -> None:
    """The smallest of those is refused from then on for an hour, smaller ones go on, and one line says what to do."""
    flight = InFlight(1 << 20)
    told = [die(flight, 100, size) for size in (84_000, 90_000, 84_000, 70_000, 84_000)]
    assert told[:-1] == [""] * (STRIKES - 1)
    assert "70000 bytes" in told[-1]
    assert "broker.max_packet_bytes" in told[-1]
    assert "too large for the broker" in flight.refusal(70_000, FORGET_S - 1)
    assert flight.refusal(69_999, 0.0) == ""
    assert flight.refusal(70_000, FORGET_S) == ""


@given(st.lists(st.lists(st.integers(100, 60_000), max_size=5), max_size=60))
def test_a_bad_link_takes_nothing_away_that_was_acknowledged(links: list[list[int]]) -> None:
    """However often links end: what is no larger than a message that the broker once had is never refused."""
    flight = InFlight(1 << 20)
    flight.sent(60_000)
    flight.acknowledged()
    for sizes in links:
        assert die(flight, *sizes) == ""
    assert flight.refusal(60_000 + SLACK, 0.0) == ""


def test_a_link_that_ends_under_small_messages_begins_the_count_anew() -> None:
    """So do not links that end with nothing in the air: they say nothing."""
    flight = InFlight(1 << 20)
    flight.sent(5_000)
    flight.acknowledged()
    for _ in range(STRIKES - 1):
        assert die(flight, 84_000) == ""
        assert die(flight) == ""
    assert die(flight, 4_000) == ""
    assert [bool(die(flight, 84_000)) for _ in range(STRIKES)] == [False] * (STRIKES - 1) + [True]


def test_what_did_not_go_out_is_not_in_the_air() -> None:
    """The newest is taken back, the oldest is the one acknowledged."""
    flight = InFlight(1 << 20)
    for size in (1, 2, 3):
        flight.sent(size)
    flight.not_sent()
    flight.acknowledged()
    assert len(flight) == 1
