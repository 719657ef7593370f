"""How unsure the shared head was in each minute, for the drift detector; written by one thread, drained by another.

Frames of a camera are alike, so a minute's mean is one observation, not a hundred. Time is the frames' own.
"""

from __future__ import annotations

from collections import deque
from math import inf, isfinite

from edge_client.drift import DAY_HOURS, MAX_CONDITIONS, OTHER, Observation

PERIOD_S = 60.0
EVERY_S = 1.0
_HOUR_S = 3600.0
_WAITING = 1024


class Doubts:
    """Means over a period, one condition apart from the other; holds a bounded number of them."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[int, float, int]] = {}
        self._last: dict[str, float] = {}
        self._done: deque[Observation] = deque(maxlen=_WAITING)

    def due(self, at_s: float, condition: str) -> bool:
        """Whether an answer at `at_s` adds anything: frames of the same second are as good as one."""
        return abs(at_s - self._last.get(condition, -inf)) >= EVERY_S

    def see(self, at_s: float, condition: str, doubt: float) -> None:
        """Take the doubt of one answer at `at_s` (s since 1970), larger is worse; one that is not finite is none."""
        if not isfinite(doubt):
            return
        if condition not in self._sums and len(self._sums) > MAX_CONDITIONS:
            condition = OTHER
        period = int(at_s // PERIOD_S)
        begun, total, count = self._sums.get(condition, (period, 0.0, 0))
        if begun != period and count:
            hour = int(begun * PERIOD_S // _HOUR_S) % DAY_HOURS
            self._done.append(Observation(hour, condition, total / count))
            total, count = 0.0, 0
        self._last[condition] = at_s
        self._sums[condition] = (period, total + doubt, count + 1)

    def drain(self) -> list[Observation]:
        """Take the periods that are over."""
        return [self._done.popleft() for _ in range(len(self._done))]
