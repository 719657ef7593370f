"""How many chunks may be under way, and when one counts as lost; pure: owns no clock, no chunk and no link.

The window follows the delay, as in LEDBAT (RFC 6817): the first chunk of a link goes alone and tells its round trip;
the window grows while round trips are near the shortest, and shrinks once chunks wait `TARGET_S` behind each other, so
that a message sent meanwhile waits little longer than that. A chunk that did not come halves it. The time after which
one counts as lost follows the round trip (RFC 6298).
"""

from __future__ import annotations

from collections import deque
from math import inf

MOST = 64
LEAST = 2
"""Chunks under way at least: with one alone the link would be idle for a round trip each."""
TARGET_S = 0.15
TIMEOUT_S = 5.0
LONGEST_TIMEOUT_S = 60.0
GROWTH = 0.5
"""Chunks that a window grows by in a round trip, at most; what it does is felt a round trip later."""
_NEWEST = 3
"""Round trips whose shortest stands for now: a single slow one is a busy processor, not a full link."""


class Pace:
    """Window and timeout of one link; what is learnt holds until the link is new.

    Args:
        most: chunks under way at most.
        timeout_s: the shortest time after which a chunk counts as lost.
    """

    def __init__(self, most: int = MOST, timeout_s: float = TIMEOUT_S) -> None:
        self._most, self._least_timeout_s = most, timeout_s
        self._least = min(LEAST, most)
        self.relink()

    @property
    def window(self) -> int:
        """Chunks that may be under way now."""
        return int(self._window) if self._newest else 1

    @property
    def timeout_s(self) -> float:
        """Seconds after which a chunk counts as lost."""
        return min(self._timeout_s, LONGEST_TIMEOUT_S)

    def relink(self) -> None:
        """The link is new: what was learnt of the old one is void."""
        self._window, self._timeout_s = float(self._least), self._least_timeout_s
        self._shortest_s = self._mean_s = self._spread_s = 0.0
        self._newest: deque[float] = deque(maxlen=_NEWEST)
        self._starting, self._deaf_until = True, -inf

    def came(self, seconds: float) -> None:
        """A whole chunk came, so long after it was asked for once."""
        self._estimate(seconds)
        self._newest.append(seconds)
        self._shortest_s = min(self._shortest_s, seconds)
        usual_s = seconds if self._starting else min(self._newest)
        queued = usual_s - self._shortest_s
        if self._starting and queued < TARGET_S:
            self._window += 1
        elif self._starting:
            self._starting = False
            self._window *= self._shortest_s / usual_s
        else:
            off = (TARGET_S - queued) / TARGET_S
            self._window += max(min(off, GROWTH), -1.0) / self._window
        self._window = min(max(self._window, self._least), self._most)

    def came_late(self) -> None:
        """A chunk came that was asked for more than once: which request it answers is not known, but the link lives."""
        self._timeout_s = max(self._timeout_s / 2, self._usual_s)

    def lost(self, now: float) -> None:
        """Chunks did not come in time, at `now` (s); those lost within a round trip were lost together."""
        if now < self._deaf_until:
            return
        self._deaf_until = now + self._mean_s
        self._starting = False
        self._window = max(self._window / 2, self._least)
        self._timeout_s = min(self._timeout_s * 2, LONGEST_TIMEOUT_S)

    def _estimate(self, seconds: float) -> None:
        if not self._newest:
            self._shortest_s, self._mean_s, self._spread_s = seconds, seconds, seconds / 2
        else:
            self._spread_s += (abs(self._mean_s - seconds) - self._spread_s) / 4
            self._mean_s += (seconds - self._mean_s) / 8
        self._timeout_s = self._usual_s

    @property
    def _usual_s(self) -> float:
        return max(self._mean_s + 4 * self._spread_s, self._least_timeout_s)
