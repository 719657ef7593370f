"""A device's own forecast head as plain arrays: what it adds to the shared forecast. No torch, no file.

Owns the numbers and how they answer; not how they are learnt (see `forecast_fit`) nor the trunk before them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from edge_models.profiles import Profile
from edge_protocol.errors import IncompatibleError

F4 = npt.NDArray[np.float32]
F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ForecastHead:
    """One hidden layer over the features and the device's side inputs: shared + second · silu(first · inputs).

    A head whose second layer is 0 is the shared one; a new head starts there.

    Attributes:
        first: (hidden, K + F) float32; the first K columns meet the features, the last F the side inputs.
        first_bias: (hidden,) float32.
        second: (2H, hidden) float32.
        second_bias: (2H,) float32.

    Raises:
        IncompatibleError: the arrays do not fit each other, or hold NaN or infinity.
    """

    first: F4
    first_bias: F4
    second: F4
    second_bias: F4

    def __post_init__(self) -> None:
        shapes = [array.shape for array in self._arrays().values()]
        if [len(shape) for shape in shapes] != [2, 1, 2, 1] or not (
            shapes[0][0] == shapes[1][0] == shapes[2][1] and shapes[2][0] == shapes[3][0]
        ):
            raise IncompatibleError(f"arrays of shapes {shapes} make no forecast head; fit it again")
        if not all(np.isfinite(array).all() for array in self._arrays().values()):
            raise IncompatibleError("a forecast head holds NaN or infinity; fit it again")

    def apply(self, features: F4, side: F4, shared: F4) -> F4:
        """Return the personal forecasts: (N, 2H) float32, means and then log-spreads, as the shared model's.

        Args:
            features: (N, K) float32 of the shared trunk.
            side: (N, F) float32, see `side_inputs`.
            shared: (N, 2H) float32, what the shared model forecasts.

        Raises:
            IncompatibleError: the head was fitted on other widths.
        """
        width, outputs = features.shape[1] + side.shape[1], shared.shape[1]
        if (outputs, width) != (len(self.second), self.first.shape[1]):
            raise IncompatibleError(
                f"a head of {self.first.shape[1]} inputs and {len(self.second)} outputs got {width} and {outputs}: "
                "the release or the device's sensors have changed, so fit it again"
            )
        hidden = np.hstack([features, side]) @ self.first.T + self.first_bias
        hidden *= 0.5 * (1 + np.tanh(0.5 * hidden))
        return np.asarray(shared + hidden @ self.second.T + self.second_bias, np.float32)

    def to_bytes(self) -> bytes:
        """Write as safetensors, under the attributes' names."""
        return save(self._arrays())

    @classmethod
    def from_bytes(cls, data: bytes) -> ForecastHead:
        """Read what `to_bytes` wrote.

        Raises:
            IncompatibleError: the bytes are not a forecast head.
        """
        try:
            return cls(**{name: array.astype(np.float32) for name, array in load(data).items()})
        except (SafetensorError, ValueError, TypeError) as error:
            raise IncompatibleError(f"these {len(data)} bytes are not a forecast head: {error}") from error

    def _arrays(self) -> dict[str, F4]:
        pairs = {"first": self.first, "first_bias": self.first_bias}
        return pairs | {"second": self.second, "second_bias": self.second_bias}


@dataclass(frozen=True, eq=False)
class Places:
    """Where N windows end.

    Attributes:
        time_s: (N,) float64, seconds since 1970 of the last row of each window.
        sensor: (N,) int64, column of the device's series.
        last: (N,) float64, the window's last measured reading.
    """

    time_s: F8
    sensor: I8
    last: F8


def side_inputs(
    places: Places, ahead_s: npt.ArrayLike, profile: Profile, spread: npt.ArrayLike, truth: F8 | None = None
) -> F4:
    """Build what a device knows beside the window: which sensor it is, and what that sensor usually reads by then.

    Args:
        places: of N windows.
        ahead_s: (H,) seconds to each horizon.
        profile: of the device's S sensors.
        spread: (S,) float > 0, to measure in.
        truth: (N, H) the readings that came, where they are part of the profile's history (training); NaN missing.

    Returns:
        (N, S + H) float32: one-hot sensor, then the usual change until each horizon in units of the sensor's spread;
        0 where nothing is known.
    """
    sensors = profile.total.shape[1]
    usual = [
        profile.expected(places.time_s + ahead, places.sensor, None if truth is None else truth[:, at])
        for at, ahead in enumerate(np.asarray(ahead_s, np.float64).tolist())
    ]
    change = (np.stack(usual, axis=1) - places.last[:, None]) / np.asarray(spread)[places.sensor, None]
    return np.hstack([np.eye(sensors)[places.sensor], np.nan_to_num(change)]).astype(np.float32)
