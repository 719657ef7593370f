"""Everything a device says: header, topic, bytes, and the outbox for what must not be lost; owns no decision."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from edge_client.last_votes import in_full
from edge_client.outbox import Outbox
from edge_client.raw_bytes import raw_bytes_in
from edge_client.stamp import Stamp
from edge_protocol import messages as m
from edge_protocol.codec import encode, kind_of
from edge_protocol.effects import Send
from edge_protocol.errors import LocalProtocolError, StoreError
from edge_protocol.ids import DeviceId
from edge_protocol.topics import Topics
from edge_protocol.transport.base import Transport

_BATCH = 16
LOG = logging.getLogger(__name__)


class Uplink:
    """Sends messages over a transport; used by one thread only.

    Args:
        topics: of the fleet.
        device: the device's name.
        stamp: makes headers.
        outbox: keeps what must not be lost.
        transport: the link.
        drops: where what could not be sent is counted by reason.
        seen: raw samples just seen, which must not leave.

    Attributes:
        sent: bytes that the link took, topic and payload, by kind of message.
        raw_bytes: bytes of samples found in what was to be sent, and withheld.
    """

    def __init__(
        self,
        topics: Topics,
        device: DeviceId,
        stamp: Stamp,
        outbox: Outbox,
        transport: Transport,
        drops: Counter[str],
        seen: Callable[[], Sequence[npt.NDArray[np.generic]]],
    ) -> None:
        self._topics, self._device, self._stamp = topics, device, stamp
        self._outbox, self._transport, self._drops = outbox, transport, drops
        self._seen = seen
        self.sent: Counter[m.Kind] = Counter()
        self.raw_bytes = 0

    def send(self, effect: Send, now: float) -> None:
        """Send a message, or write it down and send it until it is acknowledged."""
        header = self._stamp.header()
        try:
            payload = encode(header, self._brief(effect.body, header.message_id))
        except LocalProtocolError as error:
            self._drop(error)
            return
        if not self._fits(kind_of(effect.body), payload):
            return
        found = raw_bytes_in(payload, self._seen())
        if found:
            self.raw_bytes += found
            self._drops["raw-bytes"] += 1
            return
        if not effect.durable:
            self._publish(kind_of(effect.body), payload, retain=effect.retain)
            return
        body = effect.body
        number = body.round if isinstance(body, m.FullReport) else None
        until = (body.source, body.end_s) if isinstance(body, m.IntervalResult) else None
        try:
            dropped = self._outbox.put(
                header.message_id, kind_of(body), payload, slot=_slot(body), number=number, until=until
            )
        except StoreError:
            self._drops["outbox-failed"] += 1
            self._publish(kind_of(effect.body), payload)
            return
        if dropped:
            self._drops["outbox-full"] += dropped
        self.flush(now)

    def flush(self, now: float) -> None:
        """Send what is due, as far as the link takes it."""
        if not self._transport.ready:
            return
        try:
            due = self._outbox.due(now, _BATCH)
        except StoreError:
            self._drops["outbox-failed"] += 1
            return
        for waiting in due:
            if not self._fits(waiting.kind, waiting.payload):
                self._outbox.put_aside(waiting.message_id, now)
                continue
            if not self._publish(waiting.kind, waiting.payload):
                return
            self._outbox.sent(waiting.message_id, now)

    def _brief(self, body: m.Body, message_id: bytes) -> m.Body:
        """Tell a report in few bytes; anything else as it is."""
        if not isinstance(body, m.KnowledgeReport):
            return body
        try:
            return self._outbox.votes.code(body, message_id)
        except StoreError:
            self._drops["votes-failed"] += 1
            return in_full(body)

    def _publish(self, kind: m.Kind, payload: bytes, *, retain: bool = False) -> bool:
        topic = self._topic(kind)
        try:
            taken = self._transport.publish(topic, payload, retain=retain)
        except LocalProtocolError as error:
            self._drop(error)
            return False
        if taken:
            self.sent[kind] += len(topic.encode()) + len(payload)
        return taken

    def _fits(self, kind: m.Kind, payload: bytes) -> bool:
        """Whether the broker takes messages of that size; one that it does not take is counted."""
        try:
            self._transport.check(self._topic(kind), payload)
        except LocalProtocolError as error:
            self._drop(error)
            return False
        return True

    def _drop(self, error: LocalProtocolError) -> None:
        LOG.warning("not sent: %s", error)
        self._drops[error.reason] += 1

    def _topic(self, kind: m.Kind) -> str:
        return self._topics.online(self._device) if kind == "online" else self._topics.up(self._device, kind)


def _slot(body: m.Body) -> str | None:
    """Newer state takes the place of older: only the last deployment state and the last report count."""
    match body:
        case m.Deployment() | m.KnowledgeReport() | m.PrototypeReport() | m.Measured():
            return f"{kind_of(body)}/{body.task}"
        case _:
            return None
