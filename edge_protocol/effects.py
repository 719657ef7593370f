"""What a pure core wants done; the shell does it. Owns the effects both sides share; each side adds its own."""

from __future__ import annotations

import msgspec

from edge_protocol.ids import DeviceId
from edge_protocol.messages import All, Body, Down


class Send(msgspec.Struct, frozen=True):
    """Send a message.

    Attributes:
        body: what to say; its type decides the topic's kind.
        to: the device, on the server's side; None for everyone or, on a device, for the server.
        retain: the broker keeps it as the topic's state.
        durable: keep it on disk and send it again until the server acknowledges it.
    """

    body: Body | Down | All
    to: DeviceId | None = None
    retain: bool = False
    durable: bool = False


class Drop(msgspec.Struct, frozen=True):
    """Count something that was refused.

    Attributes:
        reason: slug to count under.
        detail: for the log: what and where.
    """

    reason: str
    detail: str
