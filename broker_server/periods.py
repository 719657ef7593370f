"""When what is done every so often is due again, by a clock that may be set meanwhile; pure."""

from __future__ import annotations

from typing import Final

NEVER: Final = float("-inf")
"""When what was never done was done last."""


def over(since_s: float, period_s: float, now: float) -> bool:
    """Whether a period is over: to its end, or because the clock was set to before its beginning.

    Who waits for the end alone is deaf for as long as the clock was set back by.
    """
    return not since_s <= now < since_s + period_s
