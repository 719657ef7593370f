"""The seam between Roadcast and a broker: publish, subscribe, and one inbox; owns no message format.

A transport never calls into the application. It puts events into the inbox, and the pump thread takes them out.
"""

from __future__ import annotations

from collections.abc import Iterable
from queue import Queue
from typing import Protocol, TypeAlias

import msgspec


class Connected(msgspec.Struct, frozen=True):
    """The link is up; subscriptions have been renewed.

    Attributes:
        generation: counts connections of this process, from 1.
    """

    generation: int


class Disconnected(msgspec.Struct, frozen=True):
    """The link is down; the transport goes on trying."""

    reason: str


class Received(msgspec.Struct, frozen=True):
    """A message came in."""

    topic: str
    payload: bytes
    retained: bool = False


class Refused(msgspec.Struct, frozen=True):
    """The transport gave up on something, and says what: a full inbox, a subscription denied, a failed attempt."""

    reason: str
    detail: str


TransportEvent: TypeAlias = Connected | Disconnected | Received | Refused
Inbox: TypeAlias = "Queue[object]"
"""Where events arrive; bounded by whoever makes it. Shells put their own events in beside the transport's."""


class LastWill(msgspec.Struct, frozen=True):
    """What the broker says for us when the link dies."""

    topic: str
    payload: bytes


class Traffic(msgspec.Struct):
    """Bytes and messages that crossed the link, payload and topic, since the start."""

    bytes_up: int = 0
    bytes_down: int = 0
    messages_up: int = 0
    messages_down: int = 0


class Transport(Protocol):
    """One connection to a broker. Every method may be called from any thread; none blocks on the network."""

    traffic: Traffic

    @property
    def connected(self) -> bool:
        """Whether the link is up now."""
        ...

    @property
    def ready(self) -> bool:
        """Whether another `publish` would be taken now: connected, and room in the window of unacknowledged ones."""
        ...

    def start(self) -> None:
        """Begin connecting; `Connected` arrives in the inbox. Neither waits nor raises when the broker is down."""
        ...

    def check(self, topic: str, payload: bytes) -> None:
        """Say whether this broker takes messages of that size at all, link or no link.

        Raises:
            LocalProtocolError: ``oversized``: `publish` would never take it.
        """
        ...

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> bool:
        """Hand over a message at QoS 1; return False when it was not taken because the link is down or full.

        True is no delivery: only an application ack is. An empty retained payload clears the topic.

        Raises:
            LocalProtocolError: as `check` says.
        """
        ...

    def subscribe(self, filters: Iterable[str]) -> None:
        """Add filters; they are renewed on each connection until unsubscribed."""
        ...

    def unsubscribe(self, filters: Iterable[str]) -> None:
        """Remove filters."""
        ...

    def close(self) -> None:
        """Disconnect in order (the last will is not sent) and end every thread. Safe to call twice."""
        ...
