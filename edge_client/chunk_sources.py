"""Where chunks are asked for: of an HTTP mirror while it delivers, of the broker else; owns no chunk and no file."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING, Protocol

from edge_client.backoff import Backoff
from edge_client.pace import Pace
from edge_protocol.blobs import BlobRef
from edge_protocol.topics import Topics

if TYPE_CHECKING:
    from edge_client.mirror import Mirror

MIRROR_WINDOW = 16
UNSUBSCRIBE_BATCH = 8
"""Filters that a packet holds; what is had need not be unsubscribed at once."""
MIRROR_SILENCE_S = 60.0
"""A mirror that sends no whole chunk for so long is left for the broker."""
MIRROR_PAUSE_S, MIRROR_LONGEST_PAUSE_S = 60.0, 3600.0


class Subscriptions(Protocol):
    """The part of a transport that a fetcher uses."""

    @property
    def connected(self) -> bool:
        """Whether the link is up."""
        ...

    def subscribe(self, filters: Iterable[str]) -> None:
        """Add filters."""
        ...

    def unsubscribe(self, filters: Iterable[str]) -> None:
        """Remove filters."""
        ...


class ChunkSources:
    """The broker and maybe a mirror; used by one thread only.

    Args:
        topics: of the fleet.
        link: where to subscribe.
        mirror: tried first; after a failure it has a pause, of a minute at first.
        pace: of the link.
        device: its name, so that a fleet does not come back to a mirror all at once.

    Attributes:
        mirrored: whether the mirror is asked now.
    """

    def __init__(self, topics: Topics, link: Subscriptions, mirror: Mirror | None, pace: Pace, device: str) -> None:
        self._topics, self._link, self._mirror, self._pace = topics, link, mirror, pace
        self._pause = Backoff(device, MIRROR_PAUSE_S, MIRROR_LONGEST_PAUSE_S)
        self._subscribed: dict[str, None] = {}
        self._had: list[str] = []
        self._heard_s = inf
        self.mirrored = mirror is not None

    @property
    def usable(self) -> bool:
        """Whether anything can be asked for now."""
        return self.mirrored or self._link.connected

    @property
    def bytes_mirror(self) -> int:
        """Bytes that came from the mirror since the start."""
        return self._mirror.bytes_down if self._mirror is not None else 0

    @property
    def window(self) -> int:
        """Chunks that may be under way."""
        return MIRROR_WINDOW if self.mirrored else self._pace.window

    @property
    def timeout_s(self) -> float:
        """Seconds after which a chunk is asked for again; a mirror fails as a whole."""
        return inf if self.mirrored else self._pace.timeout_s

    def failure(self, now: float) -> str:
        """Leave a mirror that fails, and say why: what it was asked for is due again. Go back to it after a pause."""
        if self._mirror is None or not self.mirrored:
            self.mirrored = self._pause.due(now)
            return ""
        reason = self._mirror.failure()
        if now - self._heard_s >= MIRROR_SILENCE_S:
            reason = f"the mirror sent no whole chunk for {MIRROR_SILENCE_S:g} s"
        if reason:
            self.forget()
            self.mirrored = False
            self._pause.fail(now)
        return reason

    def ask(self, ref: BlobRef, indices: list[int], now: float) -> None:
        """Ask for chunks."""
        if self.mirrored and self._mirror is not None:
            self._heard_s = min(self._heard_s, now)
            self._mirror.ask(ref, indices)
        elif indices:
            topics = [self._topics.chunk(ref.sha256, index) for index in indices]
            self._subscribed.update(dict.fromkeys(topics))
            self._link.subscribe(topics)

    def ask_again(self, ref: BlobRef, indices: list[int], now: float) -> None:
        """Ask the broker once more for chunks that did not come in time."""
        self._pace.lost(now)
        self._link.unsubscribe([self._topics.chunk(ref.sha256, index) for index in indices])
        self.ask(ref, indices, now)

    def came(self, ref: BlobRef, index: int, waited_s: float | None, now: float) -> None:
        """A chunk that was lacking came, from wherever, so long after it was asked for once."""
        topic = self._topics.chunk(ref.sha256, index)
        if self.mirrored and topic not in self._subscribed:
            self._heard_s = now
            self._pause.reset()
        elif waited_s is None:
            self._pace.came_late()
        elif (index + 1) * ref.chunk_bytes <= ref.size:
            self._pace.came(waited_s)
        self._unsubscribe(topic)

    def had(self, ref: BlobRef, index: int) -> None:
        """A chunk came that was there before."""
        self._unsubscribe(self._topics.chunk(ref.sha256, index))

    def _unsubscribe(self, topic: str) -> None:
        """The broker need not send a chunk any more: say so, with the next few in one packet."""
        if topic in self._subscribed:
            del self._subscribed[topic]
            self._had.append(topic)
        if len(self._had) >= UNSUBSCRIBE_BATCH:
            self.settle()

    def settle(self) -> None:
        """Unsubscribe what is had; before a link comes back, for that renews every subscription."""
        if self._had:
            self._link.unsubscribe(self._had)
            self._had = []

    def relink(self) -> None:
        """The link is new. What the old one was asked for is asked of it too: the transport renews subscriptions."""
        self._pace.relink()

    def forget(self) -> None:
        """Nothing is wanted any more of what was asked for."""
        if self._subscribed or self._had:
            self._link.unsubscribe([*self._had, *self._subscribed])
            self._subscribed, self._had = {}, []
        if self._mirror is not None:
            self._mirror.withdraw()
        self._heard_s = inf

    def next_deadline(self) -> float | None:
        """When a mirror has been silent for too long (s)."""
        return self._heard_s + MIRROR_SILENCE_S if self.mirrored and self._heard_s < inf else None

    def close(self) -> None:
        """End the mirror's thread."""
        if self._mirror is not None:
            self._mirror.close()
