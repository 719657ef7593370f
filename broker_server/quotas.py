"""How much one device may say, and have said again: three token buckets each; pure, bounded, time is an argument.

A message over the quota is dropped before it is read. A durable one stays in the device's outbox and comes again.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Annotated

import msgspec
from msgspec import Meta

from edge_protocol.ids import DeviceId

DAY_S = 86_400.0
MESSAGES, BYTES, AGAIN = "quota-messages", "quota-bytes", "quota-again"


class QuotaConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one device may send; far above what an honest one does.

    Attributes:
        messages_s: messages a second, on the long run.
        burst: messages at once, such as the results of a day without a link.
        bytes_day: bytes a day, topics not counted; as many may come at once.
        again_s: bytes of chunks a second that are published again at its word, on the long run.
        again_burst: bytes of them at once, such as a release of which the broker lost everything.
    """

    messages_s: Annotated[float, Meta(gt=0)] = 50.0
    burst: Annotated[int, Meta(ge=1)] = 2000
    bytes_day: Annotated[int, Meta(ge=1 << 20)] = 1 << 30
    again_s: Annotated[float, Meta(gt=0)] = 16_384.0
    again_burst: Annotated[int, Meta(ge=1 << 20)] = 16 << 20


class Quotas:
    """The buckets of every device.

    Args:
        config: their size.
        limit: devices remembered; the one silent for longest goes first, and its buckets are full when it comes again.
    """

    def __init__(self, config: QuotaConfig, limit: int) -> None:
        self._config, self._limit = config, limit
        self._buckets: OrderedDict[DeviceId, tuple[float, float, float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def refusal(self, device: DeviceId, size: int, now: float) -> str:
        """Take one message out of a device's buckets, or say which has too little in it and take nothing.

        Args:
            device: whose.
            size: bytes.
            now: seconds; a clock that is set back refills nothing.

        Returns:
            "", ``quota-messages`` or ``quota-bytes``.
        """
        messages, volume, again = self._refilled(device, now)
        reason = MESSAGES if messages < 1 else BYTES if volume < size else ""
        if not reason:
            messages, volume = messages - 1, volume - size
        self._keep(device, messages, volume, again, now)
        return reason

    def again(self, device: DeviceId, size: int, now: float) -> str:
        """Take a chunk of `size` bytes that is to be published again at a device's word, or say ``quota-again``."""
        messages, volume, again = self._refilled(device, now)
        reason = AGAIN if again < size else ""
        self._keep(device, messages, volume, again if reason else again - size, now)
        return reason

    def _refilled(self, device: DeviceId, now: float) -> tuple[float, float, float]:
        config = self._config
        full = (float(config.burst), float(config.bytes_day), float(config.again_burst))
        messages, volume, again, at = self._buckets.pop(device, (*full, now))
        passed = max(0.0, now - at)
        return (
            min(full[0], messages + passed * config.messages_s),
            min(full[1], volume + passed * config.bytes_day / DAY_S),
            min(full[2], again + passed * config.again_s),
        )

    def _keep(self, device: DeviceId, messages: float, volume: float, again: float, now: float) -> None:
        self._buckets[device] = messages, volume, again, now
        if len(self._buckets) > self._limit:
            self._buckets.popitem(last=False)
