"""Devices' changes of their trunks: which count, and what they come to, tier by tier; the rule is `TrunkSharing`.

Owns the checks before the rule and the file of what a round leaves to the next; owns no training. A change says by the
hash of a weights payload what it is a change of, so one of another release or another tier can be told at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from broker_server.distil_job import TrunkSettings
from broker_server.strategies.trunk_sharing import Drift, TrunkSharing
from devices.runners.payload import read_payload
from edge_models.trunk_changes import F4, decode_change, length, trunk_of
from edge_protocol.errors import DistillationError, RemoteProtocolError
from edge_protocol.ids import DeviceId
from edge_protocol.task import Tier
from edge_protocol.trunks import TrunkChange

SLACK = 1.05
"""So much longer than was asked a change may be: rounding to INT8 steps lengthens it a little."""
_RADIUS, _VELOCITY = "radius", "velocity."


@dataclass(frozen=True, eq=False)
class Fused:
    """What the devices of a tier agree on.

    Attributes:
        change: by tensor of the released trunk, batch norm folded: what is to be added to it.
        drift: what the next round needs to know.
        devices: how many counted.
    """

    change: Mapping[str, F4]
    drift: Drift
    devices: int


class TierTrunks:
    """The changes of one tier in one round.

    Args:
        payload: the tier's weights payload of the current release.
        settings: what was asked, and the rule's own.
        drift: what the last round left; None for the first.

    Raises:
        IncompatibleError: the payload is damaged.
    """

    def __init__(self, payload: bytes, settings: TrunkSettings, drift: Drift | None = None) -> None:
        self._start = trunk_of(read_payload(payload))
        self._limit = settings.norm * length(self._start)
        before = drift if drift is not None and _fits(drift, self._start) else Drift(radius=self._limit)
        self._rule = TrunkSharing(self._start, before, settings.momentum)

    def __len__(self) -> int:
        return len(self._rule)

    def add(self, device: DeviceId, told: TrunkChange) -> None:
        """Take a device's change of this payload.

        Raises:
            RemoteProtocolError: it is damaged, not finite, of other tensors, or longer than was asked.
        """
        change = decode_change(told.data)
        if (far := length(change)) > SLACK * self._limit:
            raise RemoteProtocolError(
                "too-long", f"{device} sent a change of length {far:.3g}, more than the {self._limit:.3g} asked for"
            )
        sent = {name: _added(self._start.get(name), value) for name, value in change.items()}
        self._rule.add(device, sent)

    def fused(self) -> Fused:
        """What came of all that were added."""
        result = self._rule.result()
        change = {name: np.asarray(result[name], np.float32) - value for name, value in self._start.items()}
        return Fused(change, self._rule.drift(), len(self))


def fuse(
    changes: Mapping[DeviceId, TrunkChange],
    payloads: Mapping[Tier, bytes],
    drifts: Mapping[Tier, Drift],
    settings: TrunkSettings,
) -> tuple[dict[Tier, Fused], dict[str, str]]:
    """Fuse what devices sent, each inside its tier.

    Args:
        changes: of this round.
        payloads: of the current release, b"" for a tier that has none.
        drifts: what the last round left, where it left any.
        settings: how.

    Returns:
        By tier what its devices agree on, without tiers of fewer than `settings.least`; and of every device "" or why
        its change does not count.
    """
    bases = {sha256(payload).hexdigest(): tier for tier, payload in payloads.items() if payload}
    tiers = {tier: TierTrunks(payloads[tier], settings, drifts.get(tier)) for tier in bases.values()}
    said: dict[str, str] = {}
    of: dict[Tier, list[str]] = {tier: [] for tier in tiers}
    for device, told in sorted(changes.items()):
        tier = bases.get(told.base)
        try:
            if tier is None:
                raise RemoteProtocolError(  # noqa: TRY301 - told like what the rule refuses
                    "wrong-base", f"{device} changed weights {told.base[:12]}, which no tier of this release has"
                )
            tiers[tier].add(device, told)
        except RemoteProtocolError as error:
            said[device] = f"{error.reason}: {error}"
        else:
            of[tier].append(device)
            said[device] = ""
    for tier, names in of.items():
        if 0 < len(names) < settings.least:
            alone = f"too-few: {len(names)} of the {settings.least} devices that tier {tier!r} needs sent a change"
            said |= dict.fromkeys(names, alone)
    return {tier: each.fused() for tier, each in tiers.items() if len(each) >= settings.least}, said


def save_drift(drift: Drift) -> bytes:
    """A drift as safetensors, float32."""
    tensors = {_VELOCITY + name: np.asarray(value, np.float32) for name, value in drift.velocity.items()}
    return save(tensors | {_RADIUS: np.array([drift.radius or 0.0], np.float64)})


def load_drift(path: Path) -> Drift | None:
    """Read a drift; None when a release has none.

    Raises:
        DistillationError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        tensors = load_file(path)
        radius = float(tensors.pop(_RADIUS)[0])
    except (OSError, SafetensorError, KeyError, IndexError) as error:
        raise DistillationError(f"{path}: cannot be read: {error}; remove it, and trunks start without") from error
    velocity = {name.removeprefix(_VELOCITY): value.astype(np.float64) for name, value in tensors.items()}
    return Drift(velocity, radius or None)


def _added(start: F4 | None, change: F4) -> F4:
    """What a tensor has become; of one that is no trunk's, or of another shape, the change, for the rule to refuse."""
    return change if start is None or start.shape != change.shape else start + change


def _fits(drift: Drift, start: Mapping[str, F4]) -> bool:
    return all(name in start and start[name].shape == value.shape for name, value in drift.velocity.items())
