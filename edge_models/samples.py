"""Samples: raw inputs with what they should be answered; owns no file and no preprocessing, and needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_protocol.errors import DataError

F4 = npt.NDArray[np.float32]
UNLABELLED = -1
"""Target of an image nobody has labelled."""


@dataclass(frozen=True, eq=False)
class Samples:
    """N samples, aligned by their first axis.

    Attributes:
        raw: (N, *raw_shape) uint8 images, or float32 windows as `edge_models.windows` cuts them.
        targets: (N,) int64 classes, -1 unlabelled; or (N, H) float32 changes in units of spread, NaN missing.
        side: (N, F) float32, the device's own tabular inputs; F may be 0.
        scale: (N, 2) float32, mean and spread of the sensor that a window came from; ones for images.

    Raises:
        DataError: the arrays are not aligned.
    """

    raw: npt.NDArray[np.generic]
    targets: npt.NDArray[np.generic]
    side: F4
    scale: F4

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in ("raw", "targets", "side", "scale")}
        if len(set(lengths.values())) > 1:
            raise DataError(f"samples are not aligned: {', '.join(f'{n} of {name}' for name, n in lengths.items())}")
        if self.side.ndim != 2 or self.scale.shape[1:] != (2,):  # noqa: PLR2004
            raise DataError(f"samples need side (N, F) and scale (N, 2), not {self.side.shape} and {self.scale.shape}")

    @classmethod
    def of(
        cls,
        raw: npt.NDArray[np.generic],
        targets: npt.NDArray[np.generic] | None = None,
        *,
        side: F4 | None = None,
        scale: F4 | None = None,
    ) -> Samples:
        """Make samples; without `targets` they are unlabelled images, without `side` and `scale` they have none."""
        n = len(raw)
        return cls(
            raw,
            np.full(n, UNLABELLED, np.int64) if targets is None else targets,
            np.zeros((n, 0), np.float32) if side is None else side,
            np.ones((n, 2), np.float32) if scale is None else scale,
        )

    def __len__(self) -> int:
        return len(self.raw)

    @property
    def labelled(self) -> npt.NDArray[np.bool_]:
        """(N,) bool: which samples have a class, or at least one measured horizon."""
        if self.targets.ndim == 1:
            return np.asarray(self.targets != UNLABELLED)
        return np.asarray(np.isfinite(self.targets.astype(np.float32)).any(axis=1))

    def take(self, indices: npt.ArrayLike | slice) -> Samples:
        """Select samples by index, mask or slice."""
        chosen = indices if isinstance(indices, slice) else np.asarray(indices)
        return Samples(self.raw[chosen], self.targets[chosen], self.side[chosen], self.scale[chosen])

    @staticmethod
    def concat(parts: Sequence[Samples]) -> Samples:
        """Join samples of one task, in order.

        Raises:
            DataError: nothing to join, or samples of different tasks.
        """
        try:
            return Samples(
                np.concatenate([part.raw for part in parts]),
                np.concatenate([part.targets for part in parts]),
                np.concatenate([part.side for part in parts]),
                np.concatenate([part.scale for part in parts]),
            )
        except ValueError as error:
            raise DataError(f"cannot join {len(parts)} sets of samples: {error}") from error
