"""Tells systemd how the agent does (sd_notify(3)); silent where systemd does not ask."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify(state: str) -> None:
    """Send one state, such as ``READY=1``, ``WATCHDOG=1`` or ``STOPPING=1``."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
