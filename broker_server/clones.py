"""Finds one identity used by two boards; pure, bounded.

A boot id is drawn anew at each start. A board that starts again never comes back to an old one: a birth under a boot id
that another had followed shows two processes that take turns under one name.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from edge_protocol.ids import DeviceId

REMEMBERED = 8
"""Boot ids of a device: more than two clones at once, however they take turns, are found within so many births."""


class Clones:
    """The last boot ids of every device.

    Args:
        limit: devices remembered; the one that was born longest ago goes first.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._boots: OrderedDict[DeviceId, deque[bytes]] = OrderedDict()

    def born(self, device: DeviceId, boot_id: bytes) -> bool:
        """Note a birth; return whether its boot id is one that another had followed."""
        boots = self._boots.pop(device, deque(maxlen=REMEMBERED))
        self._boots[device] = boots
        if len(self._boots) > self._limit:
            self._boots.popitem(last=False)
        if boots and boots[-1] == boot_id:
            return False
        returned = boot_id in boots
        if returned:
            boots.remove(boot_id)
        boots.append(boot_id)
        return returned
