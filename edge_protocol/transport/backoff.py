"""How long to wait before connecting again; pure, owns no clock."""

from __future__ import annotations

from random import Random


def pause_s(attempt: int, first_s: float, limit_s: float, random: Random) -> float:
    """Draw the pause before a connection attempt.

    Exponential with equal jitter (Brooker, Exponential Backoff And Jitter, 2015): a fleet must not return all at once.

    Args:
        attempt: counted from 0 after a link that was up.
        first_s: longest pause of attempt 0, in seconds.
        limit_s: longest pause of all.
        random: where the jitter comes from.

    Returns:
        Seconds: between half and all of ``min(limit_s, first_s * 2**attempt)``.
    """
    return min(limit_s, first_s * 2.0 ** min(attempt, 32)) * random.uniform(0.5, 1.0)
