"""What every rule that shares weights is: states in, one mean state out. Owns checks and the running sum, no rule.

The sum is streaming: one float64 array per shared tensor, however many devices there are. A state that was added cannot
be taken back, so a device's first state of a round counts and a second one is refused. The order of arrival does not
matter, to float64's rounding. Pure; a state is a state dict as plain arrays.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edge_models.local_settings import LocalSettings
from edge_protocol.errors import RemoteProtocolError
from edge_protocol.ids import DeviceId

Array = npt.NDArray[np.generic]
State = Mapping[str, Array]
MAX_EXAMPLES = 10_000_000
"""A device that claims to have learnt from more is refused: a count is a weight here, and nothing proves it."""


class WeightSharing(ABC):
    """A rule that fuses the weights of one architecture; make one for each round and each tier.

    Args:
        start: the state that the devices of this round started from, all of it; says what names, shapes and dtypes
            a device's state must have.
    """

    def __init__(self, start: State) -> None:
        self._start = {name: start[name] for name in sorted(start) if self.shares(name)}
        self._sum = {name: np.zeros(value.shape, np.float64) for name, value in self._start.items()}
        self._devices: set[DeviceId] = set()
        self._examples = 0

    @abstractmethod
    def shares(self, name: str) -> bool:
        """Whether a tensor of this name leaves the device; ``head.weight`` and ``head.bias`` are the head."""

    def phases(self, settings: LocalSettings) -> tuple[LocalSettings, ...]:
        """What a device trains before it sends, one phase after the other, given what one whole training would be."""
        return (settings,)

    def part(self, state: State) -> dict[str, Array]:
        """What a device sends of its state; the bytes of these arrays are the rule's cost upwards."""
        return {name: state[name] for name in self._start}

    def __len__(self) -> int:
        return len(self._devices)

    def add(self, device: DeviceId, state: State, examples: int) -> None:
        """Add what a device sent; a refused state leaves the sum as it was.

        Args:
            device: whose it is.
            state: exactly the tensors that this rule shares, as `part` makes it.
            examples: samples it learnt from; its weight in the mean.

        Raises:
            RemoteProtocolError: `reason` is ``second-state``, ``wrong-examples``, ``wrong-names``, ``wrong-dtype``,
                ``wrong-shape`` or ``not-finite``; the message names the device and the tensor.
        """
        if device in self._devices:
            raise RemoteProtocolError("second-state", f"{device} has sent its state of this round; the first counts")
        if not 1 <= examples <= MAX_EXAMPLES:
            raise RemoteProtocolError(
                "wrong-examples", f"{device} says it learnt from {examples} samples, not 1 to {MAX_EXAMPLES}"
            )
        self._check(device, state)
        for name in self._sum:
            self._sum[name] += np.multiply(state[name], float(examples), dtype=np.float64)
        self._devices.add(device)
        self._examples += examples

    def result(self) -> dict[str, Array]:
        """The shared tensors after this round: the mean by examples, as the start's dtypes; the start without any."""
        if not self._devices:
            return dict(self._start)
        return {name: _as(total / self._examples, self._start[name].dtype) for name, total in self._sum.items()}

    def _check(self, device: DeviceId, state: State) -> None:
        if strange := sorted(set(state) ^ set(self._start)):
            what = "sent" if strange[0] in state else "did not send"
            raise RemoteProtocolError(
                "wrong-names", f"{device} {what} {strange[0][:80]!r}; {len(strange)} tensors differ from what is shared"
            )
        for name, expected in self._start.items():
            value = state[name]
            if value.dtype != expected.dtype:
                raise RemoteProtocolError("wrong-dtype", f"{device} sent {name} as {value.dtype}, not {expected.dtype}")
            if value.shape != expected.shape:
                raise RemoteProtocolError("wrong-shape", f"{device} sent {name} {value.shape}, not {expected.shape}")
            if not np.isfinite(value).all():
                raise RemoteProtocolError("not-finite", f"{device} sent NaN or infinity in {name}")


def is_head(name: str) -> bool:
    """Whether a tensor belongs to the head; all others are the trunk."""
    return name.startswith("head.")


def _as(mean: npt.NDArray[np.float64], dtype: np.dtype[np.generic]) -> Array:
    return np.asarray(np.rint(mean) if np.issubdtype(dtype, np.integer) else mean).astype(dtype)
