"""The window on simulated links: full where the link is, short where others wait, halved by loss."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_client.pace import LEAST, LONGEST_TIMEOUT_S, MOST, TARGET_S, TIMEOUT_S, Pace

CHUNK = 60 * 1024


@dataclass
class Link:
    """A link of one rate, whose chunks wait for each other."""

    rate: float
    delay_s: float

    def carry(self, pace: Pace, chunks: int) -> tuple[float, list[float]]:
        """Fetch chunks; return seconds in all, and how long a message sent with each chunk would have waited."""
        now, free, asked, waits = 0.0, 0.0, 0, list[float]()
        coming: list[tuple[float, float]] = []
        for _ in range(chunks):
            while asked < chunks and len(coming) < pace.window:
                free = max(free, now + self.delay_s / 2) + CHUNK / self.rate
                heapq.heappush(coming, (free + self.delay_s / 2, now))
                asked += 1
            waits.append(max(free - now - self.delay_s / 2, 0.0))
            at, begun = heapq.heappop(coming)
            now = at
            pace.came(now - begun)
        return now, waits


@pytest.mark.parametrize("rate", [250_000, 1_250_000, 12_500_000])
@pytest.mark.parametrize("delay_s", [0.02, 0.3])
def test_a_link_is_used_and_others_do_not_wait(rate: float, delay_s: float) -> None:
    """Three fifths of what it can carry, while a message waits little longer than the target and two chunks."""
    pace, link = Pace(), Link(rate, delay_s)
    link.carry(pace, 100)
    seconds, waits = link.carry(pace, 300)
    bound = min(rate, MOST * CHUNK / (delay_s + CHUNK / rate))
    assert 300 * CHUNK / seconds > 0.6 * bound
    assert max(waits[MOST:]) < TARGET_S + 2.5 * CHUNK / rate


def test_a_very_slow_link_carries_the_least_window_and_is_given_time() -> None:
    """At 64 kbit/s a chunk takes 8 s: two are under way, and none counts as lost."""
    pace, link = Pace(), Link(8000, 0.3)
    link.carry(pace, 30)
    assert pace.window == LEAST
    assert pace.timeout_s > 2 * CHUNK / 8000


def test_loss_halves_the_window_and_doubles_the_pause_and_chunks_bring_both_back() -> None:
    """AIMD; what is lost together counts once; neither leaves its bounds."""
    pace = Pace()
    for _ in range(200):
        pace.came(0.01)
    assert (pace.window, pace.timeout_s) == (MOST, TIMEOUT_S)
    pace.lost(100.0)
    pace.lost(100.0)
    assert (pace.window, pace.timeout_s) == (MOST // 2, 2 * TIMEOUT_S)
    for second in range(101, 121):
        pace.lost(second)
    assert (pace.window, pace.timeout_s) == (LEAST, LONGEST_TIMEOUT_S)
    pace.came_late()
    assert pace.timeout_s == LONGEST_TIMEOUT_S / 2
    pace.came(0.01)
    assert pace.timeout_s == TIMEOUT_S
    for _ in range(9000):
        pace.came(0.01)
    assert pace.window == MOST


def test_a_new_link_is_learnt_anew() -> None:
    """The shortest round trip of the old link would make a slower one look full for ever."""
    pace = Pace()
    for _ in range(50):
        pace.came(0.001)
    pace.relink()
    assert pace.window == 1
    for _ in range(50):
        pace.came(1.0)
    assert pace.window > LEAST


@given(st.lists(st.one_of(st.floats(0, 1e6), st.none()), max_size=200), st.integers(1, MOST))
def test_whatever_happens_window_and_timeout_stay_in_bounds(events: list[float | None], most: int) -> None:
    """Round trips of nothing and of days, losses in any order."""
    pace = Pace(most)
    for seconds in events:
        if seconds is None:
            pace.lost(0.0)
        else:
            pace.came(seconds)
        assert 1 <= pace.window <= most
        assert TIMEOUT_S <= pace.timeout_s <= LONGEST_TIMEOUT_S
