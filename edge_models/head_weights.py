"""A linear head as plain arrays: how a personal head answers on features, and its bytes. No torch.

Owns the numbers of a head and their file form; owns neither how they are learnt (see `fit`) nor the trunk before them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from edge_protocol.errors import IncompatibleError

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class HeadWeights:
    """A linear map from features, and maybe the device's own side inputs, to logits.

    Attributes:
        weight: (outputs, K + F) float32; the first K columns meet the features, the last F the side inputs.
        bias: (outputs,) float32.
        features: K, the width of the feature vector.
    """

    weight: FloatArray
    bias: FloatArray
    features: int = 64

    def __post_init__(self) -> None:
        outputs = self.bias.shape[0] if self.bias.ndim == 1 else -1
        if self.weight.ndim != 2 or len(self.weight) != outputs or self.weight.shape[1] < self.features:  # noqa: PLR2004 - a matrix
            raise IncompatibleError(
                f"weight {self.weight.shape} and bias {self.bias.shape} do not map {self.features} features to logits"
            )
        if not (np.isfinite(self.weight).all() and np.isfinite(self.bias).all()):
            raise IncompatibleError("a head holds NaN or infinity; fit it again")

    @property
    def outputs(self) -> int:
        """Width of the logits."""
        return int(self.bias.shape[0])

    @property
    def side(self) -> int:
        """F, how many side inputs the head uses."""
        return int(self.weight.shape[1]) - self.features

    def apply(self, features: FloatArray, side: FloatArray | None = None) -> FloatArray:
        """Return the logits, (N, outputs) float32.

        Args:
            features: (N, K) float32.
            side: (N, F) float32; a head without side columns ignores it.

        Raises:
            IncompatibleError: the inputs are not as wide as the head.
        """
        width = 0 if side is None else side.shape[1]
        if features.shape[1] != self.features or (self.side and self.side != width):
            raise IncompatibleError(
                f"a head of {self.features} features and {self.side} side inputs got {features.shape[1]} and {width}"
            )
        inputs = np.hstack([features, side]) if self.side and side is not None else features
        logits: FloatArray = inputs.astype(np.float32, copy=False) @ self.weight.T + self.bias
        return logits

    def widened(self, side: int) -> HeadWeights:
        """The same answers from a head with `side` more inputs, to which it gives weight 0."""
        extra = np.zeros((self.outputs, side), np.float32)
        return HeadWeights(np.hstack([self.weight, extra]), self.bias, self.features)

    def to_bytes(self) -> bytes:
        """Write as safetensors: ``weight``, ``bias``, and K as a scalar ``features``."""
        return save(
            {
                "weight": np.ascontiguousarray(self.weight, np.float32),
                "bias": np.ascontiguousarray(self.bias, np.float32),
                "features": np.array(self.features, np.int32),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> HeadWeights:
        """Read what `to_bytes` wrote.

        Raises:
            IncompatibleError: the bytes are not a head.
        """
        try:
            tensors = load(data)
            return cls(
                tensors["weight"].astype(np.float32),
                tensors["bias"].astype(np.float32),
                int(tensors["features"]),
            )
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise IncompatibleError(f"these {len(data)} bytes are not a head: {error}") from error
