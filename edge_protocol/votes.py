"""Soft labels as they travel: class votes and forecast votes. Owns their bounds, not what they weigh."""

from __future__ import annotations

import msgspec
import numpy as np

from edge_protocol.arrays import Array, unpack
from edge_protocol.errors import LocalProtocolError

MAX_SAMPLES = 20_000
_EVERY_BYTE = bytes(range(256))


class ClassVotes(msgspec.Struct, frozen=True, array_like=True, tag="classes"):
    """Soft labels of a classifier, three bytes a sample.

    Attributes:
        classes: (N,) uint8, most likely class.
        confidence: (N,) uint8, its probability times 255.
        density: (N,) uint8, in-distribution p-value of the sample's features on this device times 255.
        held: (C,) uint8, 1 for classes the device has examples of.
    """

    classes: Array
    confidence: Array
    density: Array
    held: Array

    def __post_init__(self) -> None:
        _check_votes(self.classes, "u1", 1)
        _check_alike(self.confidence, "confidence", "u1", self.classes.shape)
        _check_alike(self.density, "density", "u1", self.classes.shape)
        held = self.held
        if held.dtype != "u1" or len(held.shape) != 1 or not held.data:
            raise LocalProtocolError("wrong-shape", f"held must be u1[classes], not {held.dtype}{list(held.shape)}")
        if held.data.translate(None, b"\0\1"):
            raise LocalProtocolError("wrong-shape", "held must be 1 for classes with examples and 0 for the others")
        if beyond := self.classes.data.translate(None, _EVERY_BYTE[: len(held.data)]):
            raise LocalProtocolError("wrong-shape", f"a vote names class {max(beyond)} of {len(held.data)}")

    @property
    def samples(self) -> int:
        """N, the number of proxy samples answered."""
        return self.classes.shape[0]


class ForecastVotes(msgspec.Struct, frozen=True, array_like=True, tag="forecasts"):
    """Soft answers of a forecaster, in units of the proxy sample's own spread.

    Attributes:
        mean: (N, H) float16, change against the window's last reading.
        spread: (N, H) float16, standard deviation, > 0.
        density: (N,) uint8, as in `ClassVotes`.
    """

    mean: Array
    spread: Array
    density: Array

    def __post_init__(self) -> None:
        _check_votes(self.mean, "f2", 2)
        _check_alike(self.spread, "spread", "f2", self.mean.shape)
        _check_alike(self.density, "density", "u1", self.mean.shape[:1])
        mean, spread = (unpack(array).astype(np.float32) for array in (self.mean, self.spread))
        if not (np.isfinite(mean).all() and np.isfinite(spread).all()):
            raise LocalProtocolError("not-finite", "a forecast holds NaN or infinity")
        if not (spread > 0).all():
            raise LocalProtocolError("wrong-shape", "a forecast's spread must be above 0")

    @property
    def samples(self) -> int:
        """N, the number of proxy samples answered."""
        return self.mean.shape[0]


def _check_votes(array: Array, dtype: str, dimensions: int) -> None:
    if array.dtype != dtype or len(array.shape) != dimensions:
        raise LocalProtocolError(
            "wrong-shape", f"votes must be {dtype} of {dimensions} dimensions, not {array.dtype}{list(array.shape)}"
        )
    if array.shape[0] > MAX_SAMPLES:
        raise LocalProtocolError("oversized", f"{array.shape[0]} votes exceed {MAX_SAMPLES}")


def _check_alike(array: Array, what: str, dtype: str, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise LocalProtocolError(
            "wrong-shape", f"{what} must be {dtype}{list(shape)} like the votes, not {array.dtype}{list(array.shape)}"
        )
