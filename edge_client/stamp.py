"""Headers of everything that this boot of the device sends; owns boot id and sequence."""

from __future__ import annotations

import os
import threading
import time

from edge_protocol.ids import DeviceId, FleetId
from edge_protocol.messages import Header

CLOCK_FLOOR_S = 1_767_225_600.0
"""2026-01-01: a clock that shows less has not been set since the board was switched on."""


class Stamp:
    """Makes headers; may be used from any thread.

    Args:
        fleet: fleet of the device.
        device: its name.
    """

    def __init__(self, fleet: FleetId, device: DeviceId) -> None:
        self._fleet, self._device = fleet, device
        self._boot_id = os.urandom(8)
        self._sequence = 0
        self._lock = threading.Lock()

    def header(self) -> Header:
        """The next header: a new message id, the next sequence number, the time now."""
        with self._lock:
            sequence, self._sequence = self._sequence, self._sequence + 1
        now = time.time()
        return Header(
            self._fleet, self._device, os.urandom(16), self._boot_id, sequence, now, clock_trusted=now >= CLOCK_FLOOR_S
        )
