"""What devices do that an honest one does not: too much, and in two places at once. Pure; owns what is told of it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from broker_server.clones import Clones
from broker_server.quotas import QuotaConfig, Quotas
from edge_protocol.ids import DeviceId

CLONE = "clone"
_FORGET_S = 7 * 86_400.0


class Offence(msgspec.Struct):
    """What a device did.

    Attributes:
        count: how often.
        last_s: when last, seconds since 1970.
    """

    count: int
    last_s: float


Offences = dict[DeviceId, dict[str, Offence]]
"""By device and reason: ``quota-messages``, ``quota-bytes``, ``quota-again``, ``clone``."""


class Conduct:
    """Quotas and clones of a fleet, and their count by device and reason.

    Args:
        quota: of each device.
        limit: devices remembered.
        before: offences of an earlier process.
    """

    def __init__(self, quota: QuotaConfig, limit: int, before: Mapping[DeviceId, dict[str, Offence]]) -> None:
        self.offences: Offences = dict(before)
        self._quotas, self._clones, self._limit = Quotas(quota, limit), Clones(limit), limit

    def refusal(self, device: DeviceId, size: int, now: float) -> str:
        """Say why a message of that many bytes is not taken, "" when it is."""
        reason = self._quotas.refusal(device, size, now)
        if reason:
            self._note(device, reason, now)
        return reason

    def again(self, device: DeviceId, size: int, now: float) -> str:
        """Say why a chunk of that many bytes is not published again at a device's word, "" when it is."""
        reason = self._quotas.again(device, size, now)
        if reason:
            self._note(device, reason, now)
        return reason

    def born(self, device: DeviceId, boot_id: bytes, now: float) -> bool:
        """Note a birth; return whether two boards take turns under this name."""
        cloned = self._clones.born(device, boot_id)
        if cloned:
            self._note(device, CLONE, now)
        return cloned

    def forget(self, now: float) -> None:
        """Drop what was last done a week ago."""
        for device, found in list(self.offences.items()):
            kept = {reason: each for reason, each in found.items() if now - each.last_s < _FORGET_S}
            if kept:
                self.offences[device] = kept
            else:
                del self.offences[device]

    def _note(self, device: DeviceId, reason: str, now: float) -> None:
        if device not in self.offences and len(self.offences) >= self._limit:
            return
        offence = self.offences.setdefault(device, {}).setdefault(reason, Offence(0, now))
        offence.count, offence.last_s = offence.count + 1, now
