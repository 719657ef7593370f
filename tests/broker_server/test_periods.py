"""A period is over at its end, and when the clock was set to before its beginning."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker_server.periods import NEVER, over

SECONDS = st.floats(-1e10, 1e10)


@given(SECONDS, st.floats(1, 1e5), SECONDS)
def test_nothing_waits_longer_than_a_period_however_the_clock_jumps(since: float, period: float, now: float) -> None:
    """Not over means that less than a period is left; what was never done is due."""
    assert over(since, period, now) or 0 <= now - since <= period
    assert over(NEVER, period, now)


def test_a_period_lasts_until_its_end() -> None:
    """Not over at its beginning nor shortly before its end; over at its end, and before its beginning."""
    assert [over(100.0, 10.0, now) for now in (100.0, 109.9, 110.0, 99.9)] == [False, False, True, True]
