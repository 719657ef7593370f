"""What a pack holds in memory; checks that its arrays fit each other, owns no file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_protocol.errors import DataError

U1 = npt.NDArray[np.uint8]
I8 = npt.NDArray[np.int64]
F4 = npt.NDArray[np.float32]
F8 = npt.NDArray[np.float64]
Indices = I8 | npt.NDArray[np.bool_] | slice

UNLABELLED = -1
_COLOURS = 3


@dataclass(frozen=True, kw_only=True)
class ImagePack:
    """Images and what is known about each.

    Attributes:
        images: (N, H, W, 3) uint8 RGB.
        labels: (N,) int64 index into `classes`, -1 where unlabelled.
        classes: names in the order of the labels.
        side: (N, F) float32, the device's own tabular inputs.
        side_names: F names.
        groups: (N,) int64; images of one vehicle share a group, and a split never cuts a group.
        split: (N,) uint8, 0 train, 1 test.
    """

    images: U1
    labels: I8
    classes: tuple[str, ...]
    side: F4
    side_names: tuple[str, ...]
    groups: I8
    split: U1

    @classmethod
    def of(
        cls,
        images: U1,
        *,
        classes: tuple[str, ...],
        labels: npt.NDArray[Any] | None = None,
        side: F4 | None = None,
        side_names: tuple[str, ...] = (),
        groups: npt.NDArray[Any] | None = None,
        split: npt.NDArray[Any] | None = None,
    ) -> ImagePack:
        """A pack from what is there: unlabelled, each image its own group, all training data unless said otherwise.

        Raises:
            DataError: the arrays do not fit each other.
        """
        count = len(images)
        return cls(
            images=images,
            labels=np.full(count, UNLABELLED, np.int64) if labels is None else np.asarray(labels, np.int64),
            classes=classes,
            side=np.zeros((count, len(side_names)), np.float32) if side is None else np.asarray(side, np.float32),
            side_names=side_names,
            groups=np.arange(count) if groups is None else np.asarray(groups, np.int64),
            split=np.zeros(count, np.uint8) if split is None else np.asarray(split, np.uint8),
        )

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.shape[3] != _COLOURS or self.images.dtype != np.uint8:  # noqa: PLR2004
            raise DataError(f"images must be (N, H, W, 3) uint8, not {self.images.shape} {self.images.dtype}")
        count = len(self.images)
        for name in ("labels", "groups", "split"):
            if getattr(self, name).shape != (count,):
                raise DataError(f"{name} must be ({count},) like the images, not {getattr(self, name).shape}")
        if self.side.shape != (count, len(self.side_names)):
            raise DataError(f"side must be ({count}, {len(self.side_names)}), not {self.side.shape}")
        if count and not (self.labels.min() >= UNLABELLED and self.labels.max() < len(self.classes)):
            raise DataError(
                f"labels reach from {self.labels.min()} to {self.labels.max()}, the classes are {len(self.classes)}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def take(self, chosen: Indices) -> ImagePack:
        """The pack of the chosen images, in the order given."""
        picked = {name: getattr(self, name)[chosen] for name in ("images", "labels", "side", "groups", "split")}
        return replace(self, **picked)

    def labels_as(self, names: Sequence[str]) -> I8:
        """Labels (N,) int64 as places in other names; `UNLABELLED` where these lack the class, or there is none."""
        places = [names.index(name) if name in names else UNLABELLED for name in self.classes]
        return np.array([*places, UNLABELLED], np.int64)[self.labels]  # what has no label, -1, takes the last

    def with_side(self, names: tuple[str, ...]) -> ImagePack:
        """The pack with these side inputs, found by name, in the order given; one that has none stays without.

        Raises:
            DataError: it has others.
        """
        if not self.side_names:
            return self
        if not set(names) <= set(self.side_names):
            raise DataError(f"side inputs {', '.join(self.side_names)}; the task has {', '.join(names)}")
        side = self.side[:, [self.side_names.index(name) for name in names]]
        return replace(self, side=side, side_names=names)


@dataclass(frozen=True, kw_only=True)
class SeriesPack:
    """Readings of several sensors at one interval.

    Attributes:
        values: (T, S) float32 in `unit`, NaN where missing.
        time_s: (T,) float64, seconds since the epoch, rising.
        interval_s: seconds between two rows.
        sensors: S names.
        unit: unit of a reading, such as ``mph``.
        distance: (S, S) float32 road distance, inf where unknown, or None; only its order matters, for
            the unit is the pack's own.
    """

    values: F4
    time_s: F8
    interval_s: float
    sensors: tuple[str, ...]
    unit: str
    distance: F4 | None = None

    def __post_init__(self) -> None:
        shape = (len(self.time_s), len(self.sensors))
        if self.values.shape != shape or self.values.dtype != np.float32:
            raise DataError(f"values must be {shape} float32, not {self.values.shape} {self.values.dtype}")
        if not self.interval_s > 0:
            raise DataError(f"interval_s must be above 0, not {self.interval_s}")
        if not (np.isfinite(self.time_s).all() and (np.diff(self.time_s) > 0).all()):
            raise DataError("time_s must be finite and rise from row to row")
        if np.isinf(self.values).any():
            raise DataError("values must be finite, or NaN where a reading is missing")
        if self.distance is not None and self.distance.shape != (shape[1], shape[1]):
            raise DataError(f"distance must be ({shape[1]}, {shape[1]}), not {self.distance.shape}")

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, chosen: slice) -> SeriesPack:
        """The pack of some consecutive rows."""
        return replace(self, values=self.values[chosen], time_s=self.time_s[chosen])

    def columns(self, chosen: I8) -> SeriesPack:
        """The pack of some sensors, in the order given."""
        return replace(
            self,
            values=self.values[:, chosen],
            sensors=tuple(self.sensors[i] for i in chosen),
            distance=None if self.distance is None else self.distance[np.ix_(chosen, chosen)],
        )


Pack = ImagePack | SeriesPack
