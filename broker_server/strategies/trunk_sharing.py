"""Weights shared inside one tier: each device's change is clipped, their mean gains momentum. Owns no training.

A device's change is cut to the median length of the last round's changes (in the first, to the length of the weights
themselves). Each device that lies then moves the mean of n by at most radius / n, however far it goes, and
an honest device, about as long as its peers, loses next to nothing. The median is the honest devices' own while they
are more than half, and that of the *last* round lets the sum be streamed: memory is one array per tensor. Clipped
averages: McMahan et al. 2018; around a centre, against Byzantine devices: Karimireddy et al. 2021.

Mean changes of devices that see different roads are short and zigzag; momentum on the server adds up what they agree on
(FedAvgM; Hsu et al. 2019). Batch statistics stay on the device (FedBN; Li et al. 2021): momentum could push a variance
below zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from broker_server.strategies.weights import Array, State, WeightSharing
from edge_protocol.ids import DeviceId

F8 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Drift:
    """What one round leaves to the next.

    Attributes:
        velocity: by tensor, float64 of its shape: where the weights are heading.
        radius: longest change that counts in full, > 0; None before the first round.
    """

    velocity: Mapping[str, F8] = field(default_factory=dict)
    radius: float | None = None


class TrunkSharing(WeightSharing):
    """The rule for one round and one tier; give it the trunk's tensors alone, and no head leaves its device.

    Args:
        start: the tensors to share, as the devices of this round started from them.
        drift: what the last round left.
        momentum: share of the velocity that is kept, in [0, 1); 0 is a clipped FedAvg.

    Raises:
        ValueError: momentum is not in [0, 1).
    """

    def __init__(self, start: State, drift: Drift | None = None, momentum: float = 0.8) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), not {momentum}: at 1 the weights would never come to rest")
        super().__init__(start)
        self._drift, self._momentum = drift or Drift(), momentum
        self._base = {name: np.asarray(value, np.float64) for name, value in self._start.items()}
        self._radius = self._drift.radius or _length(self._base) or np.inf
        self._lengths: list[float] = []

    def shares(self, name: str) -> bool:
        """All tensors of the start but batch statistics."""
        return not name.endswith(("running_mean", "running_var", "num_batches_tracked"))

    def add(self, device: DeviceId, state: State, examples: int = 1) -> None:
        """Add what a device's weights have become, clipped; one that is refused leaves the sum as it was.

        Args:
            device: whose they are.
            state: exactly the tensors that are shared, as `part` makes them.
            examples: not used: a claim that nothing proves is no weight here.

        Raises:
            RemoteProtocolError: as `WeightSharing.add`; the message names the device and the tensor.
        """
        del examples
        self._check(device, state)
        change = {name: np.subtract(state[name], value, dtype=np.float64) for name, value in self._base.items()}
        length = _length(change)
        kept = min(1.0, self._radius / length) if length else 1.0
        super().add(device, self._moved(change, kept), 1)
        self._lengths.append(length)

    def result(self) -> dict[str, Array]:
        """The shared tensors after this round, of the start's dtypes; the start itself without any device."""
        if not self._lengths:
            return dict(self._start)
        return self._moved(self.drift().velocity)

    def drift(self) -> Drift:
        """What the next round needs to know; that of the last round without any device."""
        if not self._lengths:
            return self._drift
        last, n = self._drift.velocity, len(self._lengths)
        velocity = {
            name: self._momentum * last.get(name, np.zeros(1)) + (total / n - self._base[name])
            for name, total in self._sum.items()
        }
        return Drift(velocity, float(np.median(self._lengths)) or self._radius)

    def _moved(self, change: Mapping[str, F8], share: float = 1.0) -> dict[str, Array]:
        """The start, moved by a share of a change, in the start's dtypes."""
        moved = {name: value + share * change[name] for name, value in self._base.items()}
        return {name: value.astype(self._start[name].dtype) for name, value in moved.items()}


def _length(tensors: Mapping[str, F8]) -> float:
    """Euclidean norm over all tensors together."""
    return float(np.sqrt(sum(np.square(value).sum() for value in tensors.values())))
