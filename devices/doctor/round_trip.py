"""A message to the broker, and back where the broker lets a device read what it wrote. Owns no link.

On our own broker no topic is both written and read by a device, and every subscription is granted: there the broker's
acknowledgement (QoS 1) is all that can be had, and it comes for what its rules drop as well.
"""

from __future__ import annotations

import time
from queue import Empty
from typing import Final, Literal

from edge_protocol.transport.base import Inbox, Received, Transport

_ECHO_S: Final = 1.0
"""How long an acknowledged message may take to come back."""
_LOOK_S: Final = 0.05
RoundTrip = Literal["lost", "acknowledged", "came back"]


def round_trip(transport: Transport, inbox: Inbox, topic: str, timeout_s: float) -> RoundTrip:
    """Publish an empty message, which everybody ignores, and say how far it got.

    Args:
        transport: connected, with a window of one message, and subscribed to the topic.
        inbox: of the transport.
        topic: that the device may write.
        timeout_s: how long the acknowledgement may take.
    """
    if not transport.publish(topic, b""):
        return "lost"
    until, acknowledged = time.monotonic() + timeout_s, False
    while time.monotonic() < until:
        try:
            event = inbox.get(timeout=_LOOK_S)
        except Empty:
            event = None
        if isinstance(event, Received) and (event.topic, event.payload) == (topic, b""):
            return "came back"
        if transport.ready and not acknowledged:
            acknowledged, until = True, time.monotonic() + _ECHO_S
    return "acknowledged" if acknowledged else "lost"
