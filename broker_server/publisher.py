"""Keeps the broker's retained topics as they should be: releases, their chunks, proxy sets and round calls.

Owns what should be on the broker and a queue of what is not there yet. Never waits: it publishes while the transport is
ready, a bounded number at a time, and goes on at the next call. A broker may forget everything at any moment, even what
it has acknowledged: on each connection the small topics are published again, and of each blob two chunks are looked
for; a blob that lacks one is published again. Chunks lost between those are asked for by devices (`Need`).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from broker_server.periods import NEVER, over
from broker_server.store.blobs import BlobFolder
from edge_protocol.blobs import BlobRef
from edge_protocol.errors import DigestError, LocalProtocolError, StoreError
from edge_protocol.ids import TaskId
from edge_protocol.topics import Topics
from edge_protocol.transport.base import Transport
from edge_protocol.transport.in_flight import FORGET_S

PROBE_S = 3.0
"""How long after a connection a retained chunk may take to come before its blob counts as lost."""
COOLDOWN_S = 2.0
"""A chunk asked for again within this time of its last publication is not published again; then within twice this."""
DOUBLINGS = 6
"""How often the cooldown of a chunk doubles, to 128 s, until there is a new link."""
BURST = 64

log = logging.getLogger(__name__)
Source = Callable[[], bytes]
Spend = Callable[[int], str]
"""Takes that many bytes from what a device may have published again, or says why not."""


@dataclass(slots=True)
class _Probe:
    """Chunk topics looked for since a connection."""

    since: float
    topics: dict[str, str] = field(default_factory=dict)


class Publisher:
    """Publishes what the broker should keep.

    Args:
        topics: of the fleet.
        blobs: where chunks are read from, one at a time, when their turn comes.
        transport: where to publish.

    Attributes:
        drops: what could not be published, counted by reason.
    """

    def __init__(self, topics: Topics, blobs: BlobFolder, transport: Transport) -> None:
        self._topics, self._blobs, self._transport = topics, blobs, transport
        self.drops: Counter[str] = Counter()
        self._small: dict[str, bytes] = {}
        self._blobs_of: dict[tuple[TaskId, str], tuple[BlobRef, ...]] = {}
        self._live: dict[str, BlobRef] = {}
        self._queue: dict[str, Source] = {}
        self._urgent: dict[str, Source] = {}
        self._sent_s: dict[str, float] = {}
        self._again: Counter[str] = Counter()
        self._probe: _Probe | None = None
        self._refused_s: float | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be published or looked for."""
        return not self._queue and not self._urgent and self._probe is None

    def keep(self, topic: str, payload: bytes) -> None:
        """Have the broker keep a small message, after the chunks that were queued before it."""
        self._small[topic] = payload
        self._urgent.pop(topic, None)
        self._enqueue(self._queue, topic, lambda: payload)

    def forget(self, topic: str) -> None:
        """Have the broker forget a small message, ahead of every chunk."""
        self._small.pop(topic, None)
        self._queue.pop(topic, None)
        self._enqueue(self._urgent, topic, bytes)

    def announce(self, topic: str, payload: bytes) -> None:
        """Have the broker keep a small message, ahead of every chunk."""
        self._small[topic] = payload
        self._enqueue(self._urgent, topic, lambda: payload)

    def hold(self, task: TaskId, name: str, refs: tuple[BlobRef, ...]) -> None:
        """Have the broker keep blobs under a name, such as ``release/3``, in place of those held under it before.

        They are published now; while there is no link, the next one looks whether the broker has them.
        """
        before = self._blobs_of.get((task, name), ())
        self._blobs_of[task, name] = refs
        for ref in refs:
            if ref.sha256 not in self._live:
                self._live[ref.sha256] = ref
                self._forget_queued(ref)
                self._publish(ref, range(ref.chunks if self._transport.connected else 0))
        self._drop_unheld(before)

    def release(self, task: TaskId, name: str) -> None:
        """Stop keeping blobs under a name, and clear the chunks that no other name holds."""
        self._drop_unheld(self._blobs_of.pop((task, name), ()))

    def _drop_unheld(self, gone: tuple[BlobRef, ...]) -> None:
        held = {ref.sha256 for refs in self._blobs_of.values() for ref in refs}
        for ref in gone:
            if ref.sha256 not in held:
                self._live.pop(ref.sha256, None)
                self.clear(ref)

    def clear(self, ref: BlobRef) -> None:
        """Have the broker forget the chunks of a blob, unless it is held under some name."""
        if ref.sha256 not in self._live:
            for index in range(ref.chunks):
                self._enqueue(self._queue, self._topics.chunk(ref.sha256, index), bytes)

    def need(self, sha256: str, indices: tuple[int, ...], now: float, spend: Spend) -> str:
        """Publish chunks again that a device misses, as far as its budget goes; return why not all, or ""."""
        ref = self._live.get(sha256)
        if ref is None:
            return "unknown-blob"
        wanted = [i for i in indices if i < ref.chunks]
        for index in wanted:
            topic = self._topics.chunk(sha256, index)
            if topic in self._queue or not over(self._sent_s.get(topic, NEVER), self._pause_s(topic), now):
                continue
            if refusal := spend(min(ref.chunk_bytes, ref.size - index * ref.chunk_bytes)):
                return refusal
            self._again[topic] += 1
            self._publish(ref, [index])
        return "" if len(wanted) == len(indices) else "unknown-chunk"

    def _pause_s(self, topic: str) -> float:
        return COOLDOWN_S * 2.0 ** min(self._again[topic], DOUBLINGS)

    def connected(self, now: float) -> None:
        """A link came up: publish the small topics again, and look whether the broker still has the chunks."""
        self._again.clear()
        self._refused_s = None
        self._forget_probe()
        for topic, payload in self._small.items():
            if topic not in self._queue:
                self._enqueue(self._urgent, topic, lambda payload=payload: payload)  # type: ignore[misc]
        probe = _Probe(now)
        for ref in self._live.values():
            sent = [t for i in range(ref.chunks) if (t := self._topics.chunk(ref.sha256, i)) not in self._queue]
            probe.topics.update(dict.fromkeys({*sent[:1], *sent[-1:]}, ref.sha256))
        if probe.topics:
            self._probe = probe
            self._transport.subscribe(probe.topics)

    def found(self, topic: str) -> None:
        """A chunk that was looked for came."""
        if self._probe is not None and self._probe.topics.pop(topic, None) is not None:
            self._transport.unsubscribe([topic])
            if not self._probe.topics:
                self._probe = None

    def pump(self, now: float) -> int:
        """Publish what waits, while the transport takes it; return how many messages went out."""
        if self._probe is not None and over(self._probe.since, PROBE_S, now):
            self._republish_lost()
        if self._refused_s is not None and over(self._refused_s, FORGET_S, now) and self._transport.connected:
            self.connected(now)  # what the link would not carry may have been found out wrongly
        for sent in range(BURST):
            queue = self._urgent or self._queue
            if not queue or not self._transport.ready:
                return sent
            topic = next(iter(queue))
            if self._send(topic, queue[topic], now):
                queue.pop(topic, None)
        return BURST

    def next_deadline(self) -> float | None:
        """When `pump` has something to do by itself, or None."""
        return self._probe.since + PROBE_S if self._probe is not None else None

    def _send(self, topic: str, source: Source, now: float) -> bool:
        try:
            payload = source()
            if not self._transport.publish(topic, payload, retain=True):
                return False
        except (StoreError, DigestError) as error:
            log.error("cannot publish %s: %s", topic, error)  # noqa: TRY400 - the message says it all
            self.drops["blob-unreadable"] += 1
            return True
        except LocalProtocolError as error:
            log.error("cannot publish: %s", error)  # noqa: TRY400 - likewise
            self.drops[error.reason] += 1
            self._refused_s = now if self._refused_s is None else self._refused_s
            return True
        if payload:
            self._sent_s[topic] = now
        else:
            self._sent_s.pop(topic, None)
            self._again.pop(topic, None)
        return True

    def _republish_lost(self) -> None:
        assert self._probe is not None
        lost = set(self._probe.topics.values())
        self._forget_probe()
        for sha256 in lost & self._live.keys():
            ref = self._live[sha256]
            log.info("broker does not hold blob %s: publishing its %d chunks", sha256[:12], ref.chunks)
            self._publish(ref, range(ref.chunks))

    def _forget_probe(self) -> None:
        if self._probe is not None:
            self._transport.unsubscribe(list(self._probe.topics))
            self._probe = None

    def _publish(self, ref: BlobRef, indices: range | list[int]) -> None:
        for index in indices:
            topic = self._topics.chunk(ref.sha256, index)
            self._enqueue(self._queue, topic, lambda index=index: self._blobs.chunk(ref, index))  # type: ignore[misc]

    def _forget_queued(self, ref: BlobRef) -> None:
        for index in range(ref.chunks):
            self._queue.pop(self._topics.chunk(ref.sha256, index), None)

    @staticmethod
    def _enqueue(queue: dict[str, Source], topic: str, source: Source) -> None:
        """Put a topic at the end; what waited for the same topic is out of date."""
        queue.pop(topic, None)
        queue[topic] = source
