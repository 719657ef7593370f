"""When a device may fetch: hours over midnight, metered links, what is urgent, and a cap that holds over time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_client.fetch_policy import Allowance, FetchConfig, Surroundings
from edge_protocol.blobs import MAX_CHUNKS
from edge_protocol.config import load_config
from edge_protocol.errors import ConfigError

SIZE = 61_440


@pytest.mark.parametrize(
    ("hours", "minute", "open_"),
    [
        ("01:00-04:00", 59, False),
        ("01:00-04:00", 60, True),
        ("01:00-04:00", 239, True),
        ("01:00-04:00", 240, False),
        ("22:30-05:15", 22 * 60 + 29, False),
        ("22:30-05:15", 22 * 60 + 30, True),
        ("22:30-05:15", 0, True),
        ("22:30-05:15", 5 * 60 + 14, True),
        ("22:30-05:15", 5 * 60 + 15, False),
    ],
)
def test_hours_are_kept_over_midnight_too(hours: str, minute: int, open_: bool) -> None:
    """The first minute belongs to them, the last does not; the reason names them."""
    allowance = Allowance(FetchConfig(hours=hours))
    assert allowance.chunks(SIZE, Surroundings(minute), 0.0) == (MAX_CHUNKS if open_ else 0)
    assert allowance.reason == ("" if open_ else f"the hours are {hours}")


def test_a_metered_link_carries_only_what_is_urgent() -> None:
    """Urgency opens hours and link; the reason goes away with it."""
    allowance = Allowance(FetchConfig(hours="01:00-02:00"))
    assert allowance.chunks(SIZE, Surroundings(90, metered=True), 0.0) == 0
    assert allowance.reason == "the link is metered"
    assert allowance.chunks(SIZE, Surroundings(600, metered=True, urgent=True), 0.0) == MAX_CHUNKS
    assert allowance.reason == ""


@given(
    rate=st.floats(100, 1e7),
    size=st.integers(1, 300_000),
    steps=st.lists(st.tuples(st.floats(0, 100), st.integers(0, 64)), max_size=60),
)
def test_the_cap_holds_over_any_time(rate: float, size: int, steps: list[tuple[float, int]]) -> None:
    """Never more than a second's worth, the rate, and the one chunk that may overdraw; and never stuck."""
    allowance, now, spent = Allowance(FetchConfig(bytes_per_s=rate)), 50.0, 0
    for wait_s, wanted in steps:
        now += wait_s
        taken = min(allowance.chunks(size, Surroundings(), now), wanted)
        allowance.spend(taken * size)
        spent += taken * size
        assert spent <= rate * (now - 50.0) + rate + size + 1
    at = allowance.next_deadline()
    if at is not None:
        assert allowance.chunks(size, Surroundings(), at + 1e-3) >= 1


def test_without_a_cap_nothing_is_counted() -> None:
    """Any number of chunks at any time, and nothing to wait for."""
    allowance = Allowance(FetchConfig())
    allowance.spend(10**12)
    assert allowance.chunks(SIZE, Surroundings(), 0.0) == MAX_CHUNKS
    assert allowance.next_deadline() is None


@pytest.mark.parametrize(
    ("fetch", "said"),
    [
        ("{hours: 1:00-4:00}", "hours"),
        ("{hours: 25:00-26:00}", "hours"),
        ("{hours: '04:00-04:00'}", "leave the key out"),
        ("{bytes_per_s: 0}", "bytes_per_s"),
        ("{mirror: 'ftp://x/'}", "mirror"),
        ("{mirror_ca_file: ca.pem}", "needs mirror"),
        ("{meterd: true}", "did you mean 'metered'"),
    ],
)
def test_what_is_wrong_in_the_file_is_said(fetch: str, said: str) -> None:
    """With the key."""
    with pytest.raises(ConfigError, match=said):
        load_config(fetch, FetchConfig, where="fetch")


def test_every_key_is_read() -> None:
    """As the documentation has them."""
    text = "{mirror: 'https://x/b', mirror_ca_file: c, bytes_per_s: 50000, hours: '22:00-05:00', metered_file: /run/m}"
    found: Any = load_config(text, FetchConfig, where="fetch")
    assert (found.bytes_per_s, found.hours, found.metered, found.metered_command) == (50_000, "22:00-05:00", False, ())
