"""What was answered over an interval; missing is missing, never zero. Owns no frame; time is an argument."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, floor

from edge_protocol.messages import IntervalResult

_SLOTS = 60
"""Parts of an interval; a part in which a frame was seen is covered."""
_LATE_INTERVALS = 2


class Tally:
    """Collects the answers of one source and closes an interval at a time.

    Time is the frames' own: a clip that is replayed faster than it was taken still gives its own intervals. A camera
    that stalls gives none, so `tick` closes intervals by the wall clock as long as frames were about as old as now.

    Args:
        task: the task's name.
        source: name of the camera or series.
        interval_s: seconds of an interval.
        slot_s: seconds for which one frame stands.
        emit: takes each `IntervalResult`.
        told_s: intervals up to this time (s since 1970) were told before: a logger's file is read anew at each start.
    """

    def __init__(
        self,
        *,
        task: str,
        source: str,
        interval_s: float,
        slot_s: float | None,
        emit: Callable[[IntervalResult], None],
        told_s: float = 0.0,
    ) -> None:
        self._task, self.source, self._emit, self._told_s = task, source, emit, told_s
        self._interval_s = interval_s
        self._slot_s = min(slot_s or interval_s / _SLOTS, interval_s)
        self._start_s: float | None = None
        self._end_s = 0.0
        self._live = False
        self._seen: set[int] = set()
        self._slot: int | None = None
        self.values: dict[str, float] = {}

    def see(self, at_s: float, wall_s: float) -> None:
        """Close what ended before a frame of time `at_s` that is answered at `wall_s` (both s since 1970)."""
        slot = int(at_s // self._slot_s)
        if slot == self._slot:
            return  # most frames fall into the part of the interval that was seen last
        if self._start_s is None:
            self._begin(at_s)
        while at_s >= self._end_s:
            self._close(self._end_s)
            if at_s >= self._end_s + _LATE_INTERVALS * self._interval_s:
                self._begin(at_s)
        self._live = abs(wall_s - at_s) < _LATE_INTERVALS * self._interval_s
        self._seen.add(slot)
        self._slot = slot

    def count(self, key: str, amount: float = 1) -> None:
        """Add to a value; a key is there only once something was counted."""
        self.values[key] = self.values.get(key, 0) + amount

    def tick(self, wall_s: float) -> None:
        """Close intervals that ended by the wall clock (s since 1970) while the camera is silent."""
        while self._live and self._start_s is not None and wall_s >= self._end_s + self._slot_s:
            self._close(self._end_s)

    def finish(self) -> None:
        """The source has ended: close what there is of the last interval."""
        if self._start_s is not None and self._seen:
            last = (max(self._seen) + 1) * self._slot_s
            self._close(min(max(last, self._start_s + self._slot_s), self._end_s))
        self._start_s = None

    def _begin(self, at_s: float) -> None:
        self._start_s = floor(at_s / self._slot_s) * self._slot_s
        self._end_s = (floor(at_s / self._interval_s) + 1) * self._interval_s

    def _close(self, end_s: float) -> None:
        assert self._start_s is not None
        slots = max(ceil((end_s - self._start_s) / self._slot_s), 1)
        coverage = min(len(self._seen) / slots, 1.0)
        values = dict(sorted(self.values.items())[:1024])
        if end_s > self._told_s:
            self._emit(IntervalResult(self._task, self.source, self._start_s, end_s, coverage, values))
        self._seen.clear()
        self._slot = None
        self.values.clear()
        self._start_s, self._end_s = end_s, end_s + self._interval_s
