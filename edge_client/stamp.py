"""Headers of everything that this boot of the device sends; owns boot id and sequence."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from edge_client.trust_store import CLOCK_FLOOR_S
from edge_protocol.ids import DeviceId, FleetId
from edge_protocol.messages import Header


class Stamp:
    """Makes headers; may be used from any thread.

    Args:
        fleet: fleet of the device.
        device: its name.
        floor_s: the time that is past for sure, seconds since 1970: a clock that shows less is not trusted.
    """

    def __init__(self, fleet: FleetId, device: DeviceId, floor_s: Callable[[], float] = lambda: CLOCK_FLOOR_S) -> None:
        self._fleet, self._device, self._floor_s = fleet, device, floor_s
        self._boot_id = os.urandom(8)
        self._sequence = 0
        self._lock = threading.Lock()

    def header(self) -> Header:
        """The next header: a new message id, the next sequence number, the time now."""
        with self._lock:
            sequence, self._sequence = self._sequence, self._sequence + 1
        now = time.time()
        return Header(
            self._fleet,
            self._device,
            os.urandom(16),
            self._boot_id,
            sequence,
            now,
            clock_trusted=now >= self._floor_s(),
        )
