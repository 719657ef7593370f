"""A broker in this process, and transports on it, for tests, simulations and examples: no thread, clock or network.

Keeps the parts of MQTT 3.1.1 that the contract relies on: retained messages, `+` and `#` filters, last wills.
Faults are switched on from outside: a link can be cut, and messages can be lost, repeated and reordered.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from edge_protocol.errors import LocalProtocolError
from edge_protocol.transport.base import Connected, Disconnected, Inbox, LastWill, Received, Traffic
from edge_protocol.transport.delivery import Delivery
from edge_protocol.transport.filters import matches

Fault = Callable[[str, bytes], "list[bytes]"]
"""Given topic and payload, the payloads to deliver instead: none, one, or several."""


@dataclass(slots=True)
class MemoryBroker:
    """Routes messages between the `MemoryTransport`s made with it.

    Attributes:
        retained: topic → payload.
        fault: applied to every delivery; None delivers faithfully.
    """

    retained: dict[str, bytes] = field(default_factory=dict)
    fault: Fault | None = None
    _exact: dict[str, set[MemoryTransport]] = field(default_factory=lambda: defaultdict(set))
    _wild: dict[str, set[MemoryTransport]] = field(default_factory=lambda: defaultdict(set))

    def route(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """Deliver to every subscriber, once each, and keep it if asked to."""
        if retain:
            self.retained[topic] = payload
            if not payload:
                del self.retained[topic]
        targets = set(self._exact.get(topic, ()))
        for pattern, transports in self._wild.items():
            if matches(pattern, topic):
                targets |= transports
        for transport in sorted(targets, key=id):
            self._deliver(transport, topic, payload, retained=False)

    def subscribe(self, transport: MemoryTransport, pattern: str) -> None:
        """Register a filter and deliver what is retained under it."""
        (self._wild if _wild(pattern) else self._exact)[pattern].add(transport)
        topics = (
            [t for t in self.retained if matches(pattern, t)]
            if _wild(pattern)
            else [pattern] * (pattern in self.retained)
        )
        for topic in topics:
            self._deliver(transport, topic, self.retained[topic], retained=True)

    def unsubscribe(self, transport: MemoryTransport, pattern: str) -> None:
        """Forget a filter."""
        (self._wild if _wild(pattern) else self._exact)[pattern].discard(transport)

    def lose_store(self) -> None:
        """Forget what is retained, as a broker killed without persistence does."""
        self.retained.clear()

    def _deliver(self, transport: MemoryTransport, topic: str, payload: bytes, *, retained: bool) -> None:
        for copy in [payload] if self.fault is None else self.fault(topic, payload):
            transport.receive(Received(topic, copy, retained))


class MemoryTransport:
    """A `Transport` on a `MemoryBroker`.

    Attributes:
        max_packet_bytes: topic and payload of the largest message it takes.
    """

    max_packet_bytes = 256 << 20

    def __init__(self, broker: MemoryBroker, inbox: Inbox, will: LastWill | None = None) -> None:
        self.traffic = Traffic()
        self._broker, self._will = broker, will
        self._delivery = Delivery(inbox, patience_s=0)
        self._filters: dict[str, None] = {}
        self._generation = 0
        self._up = False

    @property
    def connected(self) -> bool:
        """Whether the link is up."""
        return self._up

    @property
    def ready(self) -> bool:
        """Whether a publish would be taken: always, while connected."""
        return self._up

    def start(self) -> None:
        """Connect, and renew subscriptions."""
        if self._up:
            return
        self._up, self._generation = True, self._generation + 1
        self._delivery.put(Connected(self._generation))
        for pattern in self._filters:
            self._broker.subscribe(self, pattern)

    def cut(self, reason: str = "cut") -> None:
        """Lose the link as a dead modem does: the broker publishes the last will. `start` brings it back."""
        self._leave(reason)
        if self._will is not None:
            self._broker.route(self._will.topic, self._will.payload, retain=True)

    def check(self, topic: str, payload: bytes) -> None:
        """Refuse what is larger than `max_packet_bytes`."""
        size, limit = len(topic) + len(payload), self.max_packet_bytes
        if size > limit:
            raise LocalProtocolError("oversized", f"message of {size} bytes on {topic!r} exceeds the broker's {limit}")

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> bool:
        """Route a message at once; return False while the link is down."""
        self.check(topic, payload)
        if not self._up:
            return False
        self.traffic.bytes_up += len(topic) + len(payload)
        self.traffic.messages_up += 1
        self._broker.route(topic, payload, retain=retain)
        return True

    def subscribe(self, filters: Iterable[str]) -> None:
        """Add filters."""
        for pattern in filters:
            self._filters[pattern] = None
            if self._up:
                self._broker.subscribe(self, pattern)

    def unsubscribe(self, filters: Iterable[str]) -> None:
        """Remove filters."""
        for pattern in filters:
            self._filters.pop(pattern, None)
            self._broker.unsubscribe(self, pattern)

    def close(self) -> None:
        """Leave in order."""
        self._leave("closed")

    def receive(self, message: Received) -> None:
        """Take a delivery from the broker."""
        if self._up:
            self.traffic.bytes_down += len(message.topic) + len(message.payload)
            self.traffic.messages_down += 1
            self._delivery.put(message)

    def _leave(self, reason: str) -> None:
        if self._up:
            self._up = False
            for pattern in self._filters:
                self._broker.unsubscribe(self, pattern)
            self._delivery.put(Disconnected(reason))


def _wild(pattern: str) -> bool:
    return "+" in pattern or "#" in pattern
