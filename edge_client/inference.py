"""The inference thread: sources → a bounded queue that drops the oldest → the running bundle → answers.

A swap is one assignment: the old bundle serves until the new one is warm and has passed its probation, and the frame
that is being answered keeps the bundle it began with. Owns threads and counters; owns no model file.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TypeAlias

import numpy as np

from devices.sources import Frame, Source
from edge_client.pipelines import Bundle, Pipeline
from edge_client.results import Tally
from edge_protocol.errors import RoadcastError

LOG = logging.getLogger(__name__)
_LATENCIES = 512
_READ_S = 0.2
_ROOM_S = 0.005
_IDLE_S = 0.25
_REOPEN_S = 5.0
_TICK_S = 1.0
_LOOK_S = 0.002
Between: TypeAlias = "Callable[[Bundle | None], None]"
"""Takes what answers frames, between two of them; takes no longer than a frame does, and never raises."""


@dataclass(eq=False, slots=True)
class Feed:
    """One source and what becomes of its frames.

    Attributes:
        name: of the source.
        opener: opens it, again after it failed.
        pipeline: answers its frames.
        tally: collects the answers.
        ended: whether its last frame was taken.
    """

    name: str
    opener: Callable[[], Source]
    pipeline: Pipeline
    tally: Tally
    ended: bool = False


@dataclass(slots=True)
class Counters:
    """What the loop counted since the start.

    Attributes:
        taken: frames that the inference thread took out of the queue.
        answered: by a bundle.
        swap_skipped: that found no bundle although there had been one: must stay 0.
        queue_dropped: that gave way to newer ones.
        missing: black, frozen or without any reading.
        failed: that could not be answered.
        source_failures: times a source had to be opened again.
    """

    taken: int = 0
    answered: int = 0
    swap_skipped: int = 0
    queue_dropped: int = 0
    missing: int = 0
    failed: int = 0
    source_failures: int = 0

    @property
    def frames(self) -> int:
        """Frames that arrived and are not waiting any more."""
        return self.taken + self.queue_dropped


class Inference:
    """Reads sources and answers their frames, each source in a reader thread, all answers in one thread.

    Args:
        feeds: the sources.
        queue: frames that may wait.
    """

    def __init__(self, feeds: list[Feed], queue: int) -> None:
        self.counters = Counters()
        self._feeds = feeds
        self._limit = queue
        self._queue: SimpleQueue[tuple[Feed, Frame | None, float]] = SimpleQueue()
        self._bundle: Bundle | None = None
        self._between: Between | None = None
        self._latencies: deque[tuple[int, float]] = deque(maxlen=_LATENCIES)  # with the release that answered
        self._stopping = threading.Event()
        self._dropping = threading.Lock()  # readers share the counter of what gave way
        self._threads: list[threading.Thread] = []
        self._turned: set[str] = set()  # a set's add and clear are one step each, so threads share it

    @property
    def bundle(self) -> Bundle | None:
        """What answers frames now."""
        return self._bundle

    @property
    def ended(self) -> bool:
        """Whether every source has ended."""
        return all(feed.ended for feed in self._feeds)

    def turned(self) -> bool:
        """Whether every thread that still has work came round since this last was true.

        A silent source does; a driver that does not come back, or a runtime that hangs, does not.
        """
        alive = self._turned >= {"", *(feed.name for feed in self._feeds if not feed.ended)}
        if alive:
            self._turned.clear()
        return alive

    def swap(self, bundle: Bundle) -> None:
        """Answer with this bundle from the next frame on."""
        self._bundle = bundle

    def between(self, step: Between | None) -> None:
        """Take this step again and again while no frame waits, in the thread that answers frames; None: no more."""
        self._between = step

    def latency_ms(self) -> dict[str, float]:
        """Percentiles over the last frames that this release answered, from arrival to answer; absent without any."""
        bundle = self._bundle
        times = [took for release, took in self._latencies.copy() if bundle is not None and release == bundle.release]
        if not times:
            return {}
        p50, p95 = np.percentile(times, [50, 95]) * 1e3
        return {"latency_p50_ms": float(p50), "latency_p95_ms": float(p95)}

    def start(self, wait_s: float = 0.0) -> None:
        """Start the threads, and wait for the first answer, as long as one can come but no longer than `wait_s`."""
        until = time.monotonic() + wait_s
        self._threads = [threading.Thread(target=self._answer, name="inference", daemon=True)]
        self._threads += [
            threading.Thread(target=self._read, args=(feed,), name=f"source-{feed.name}", daemon=True)
            for feed in self._feeds
        ]
        for thread in self._threads:
            thread.start()
        while self._bundle and not self.counters.answered and not self.ended and time.monotonic() < until:
            time.sleep(_LOOK_S)

    def stop(self, timeout_s: float = 3.0) -> None:
        """End the threads; a source that hangs in its driver is left behind after `timeout_s`."""
        self._stopping.set()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))

    def _read(self, feed: Feed) -> None:
        while not self._stopping.is_set():
            self._turned.add(feed.name)
            try:
                with feed.opener() as source:
                    if self._drain(feed, source):
                        self._queue.put((feed, None, 0.0))
                        return
            except RoadcastError as error:
                with self._dropping:
                    self.counters.source_failures += 1
                LOG.warning("source %s: %s; it is opened again in %g s", feed.name, error, _REOPEN_S)
                self._stopping.wait(_REOPEN_S)

    def _drain(self, feed: Feed, source: Source) -> bool:
        """Read a source to its end; False when the agent stops first."""
        while not self._stopping.is_set():
            frame = source.read(_READ_S)
            self._turned.add(feed.name)
            if frame is None:
                if source.ended:
                    return True
                continue
            self.offer(feed, frame)
        return False

    def offer(self, feed: Feed, frame: Frame) -> None:
        """Queue a frame; the oldest gives way when too many wait, but a row waits: a window must have no holes."""
        if frame.readings is not None:
            while self._queue.qsize() >= self._limit and not self._stopping.wait(_ROOM_S):
                pass
        elif self._queue.qsize() >= self._limit:
            self._drop_oldest()
        self._queue.put((feed, frame, time.perf_counter()))

    def answer_next(self, timeout_s: float = _IDLE_S) -> float:
        """Answer the next frame when one comes within `timeout_s`; return the time (s, `perf_counter`)."""
        try:
            feed, frame, arrived = self._queue.get(timeout=timeout_s)
        except Empty:
            return time.perf_counter()
        self.take(feed, frame, arrived)
        return arrived

    def _drop_oldest(self) -> None:
        try:
            feed, frame, _ = self._queue.get_nowait()
        except Empty:
            return
        if frame is None:
            self._queue.put((feed, None, 0.0))
        else:
            with self._dropping:
                self.counters.queue_dropped += 1

    def _answer(self) -> None:
        tick_at = 0.0
        while not self._stopping.is_set():
            step = self._between
            arrived = self.answer_next(_IDLE_S if step is None else 0.0)
            if step is not None and self._queue.empty():
                step(self._bundle)
            self._turned.add("")
            if arrived >= tick_at:
                tick_at = arrived + _TICK_S
                for each in self._feeds:
                    each.tally.tick(time.time())
        for each in self._feeds:
            each.tally.finish()

    def take(self, feed: Feed, frame: Frame | None, arrived: float) -> None:
        """Answer one frame that arrived at `arrived` (s, `perf_counter`); None ends its source."""
        if frame is None:
            feed.ended = True
            feed.tally.finish()
            return
        counters, bundle, readings = self.counters, self._bundle, frame.readings
        counters.taken += 1
        if frame.fault is not None or (frame.image is None and readings is None):
            counters.missing += 1
            return
        if readings is not None and not np.isfinite(readings).any():
            counters.missing += 1
            bundle = None  # time passes for the windows; there is nothing to answer
        elif bundle is None and counters.answered:
            counters.swap_skipped += 1
        try:
            if bundle is not None or readings is None:
                feed.tally.see(frame.at_s, time.time())
            answered = feed.pipeline.step(frame, bundle, arrived)
        except Exception:
            counters.failed += 1
            LOG.exception("source %s: frame %s could not be answered", feed.name, frame.sample)
            return
        if answered and bundle is not None:
            counters.answered += 1
            self._latencies.append((bundle.release, time.perf_counter() - arrived))
