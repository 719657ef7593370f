"""Measures what answers frames when the server asks: one request at a time, bounded; owns no frame and no link."""

from __future__ import annotations

from dataclasses import dataclass

from edge_client.effects import MeasureLatency
from edge_client.inference import Inference
from edge_client.latency_queries import LEAST, Found, OwnClock, Queries
from edge_protocol.messages import Measured
from edge_protocol.task import TaskSpec

PATIENCE_S = 60.0
"""Beyond the seconds asked for, after which it is given up: frames left too little time."""
_MOST_REASON = 500


@dataclass(frozen=True, eq=False, slots=True)
class _Current:
    asked: bytes
    queries: Queries
    until: float


class LatencyProbe:
    """Puts queries between the frames and tells what came of them; used by one thread only.

    Args:
        spec: the device's task.
        inference: answers the frames.
        threads: that one inference may use.
    """

    def __init__(self, spec: TaskSpec, inference: Inference, threads: int) -> None:
        self._spec, self._inference, self._clock = spec, inference, OwnClock(threads)
        self._current: _Current | None = None
        self._last = b""

    def start(self, wanted: MeasureLatency, now: float, *, busy: str) -> Measured | None:
        """Begin to measure; the answer at once when that cannot be, None when it comes later or was given before.

        Args:
            wanted: by whom, and how long.
            now: seconds of any clock that never goes back.
            busy: what else the device does that would be measured too, such as "trains"; "" for nothing.
        """
        if wanted.asked == self._last:
            return None  # the broker delivers twice now and then
        self._last = wanted.asked
        bundle = self._inference.bundle
        if bundle is None:
            return self._refusal(wanted.asked, 0, "nothing answers frames on this device yet")
        if self._current is not None or busy:
            says = f"the device {busy or 'measures'} already; ask again later"
            return self._refusal(wanted.asked, bundle.release, says)
        queries = Queries(bundle, self._spec.input.shape, wanted.seconds, self._clock)
        self._current = _Current(wanted.asked, queries, now + wanted.seconds + PATIENCE_S)
        self._inference.between(queries.step)
        return None

    def poll(self, now: float, *, busy: str) -> Measured | None:
        """The answer, once there is one, it is overdue at `now` (s), or the device is `busy` otherwise."""
        current = self._current
        if current is None:
            return None
        queries, outcome = current.queries, current.queries.outcome
        if outcome is None and busy:
            outcome = f"the device {busy} meanwhile; ask again later"
        if outcome is None and now >= current.until:
            outcome = f"given up: frames left time for {queries.queries} queries, {LEAST} are needed"
        if outcome is None:
            return None
        self.stop()
        if isinstance(outcome, Found):
            values, name = outcome.values, self._spec.name
            return Measured(name, current.asked, queries.release, queries.ran, outcome.queries, values)
        return self._refusal(current.asked, queries.release, outcome)

    def stop(self) -> None:
        """End what runs."""
        self._inference.between(None)
        self._current = None

    def _refusal(self, asked: bytes, release: int, reason: str) -> Measured:
        return Measured(self._spec.name, asked, release, "", 0, {}, reason[:_MOST_REASON])
