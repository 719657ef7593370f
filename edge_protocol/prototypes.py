"""Rounds without proxies: a device tells the mean features of its classes; owns their bounds, no mean and no trunk.

Features of one tier's trunk are comparable with each other and with nothing else, so a report names the release and the
tier whose trunk they are of. Means as in FedProto (Tan et al. 2022).
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import msgspec
import numpy as np
import numpy.typing as npt

from edge_protocol.arrays import Array, pack, unpack
from edge_protocol.errors import LocalProtocolError
from edge_protocol.fields import Count, Name, Seconds
from edge_protocol.task import FEATURES, Tier

F4 = npt.NDArray[np.float32]
I8 = npt.NDArray[np.int64]
MOST_COUNT = 10
"""Highest level of a count: 1,024 samples or more say no more than 1,024."""


class PrototypeCall(msgspec.Struct, frozen=True, array_like=True, tag="prototype_call"):
    """A round of a task that asks for prototypes and has no proxy set; retained in the place of a `RoundCall`.

    Attributes:
        release: counter of the release whose trunk the features are to be of.
        deadline_s: seconds since 1970 by the server's clock.
        open: False once the round is over.
    """

    task: Name
    label_space: Name
    number: Count
    release: Count
    deadline_s: Seconds
    open: bool


class PrototypeReport(msgspec.Struct, frozen=True, array_like=True, tag="prototypes"):
    """A device's class means, of the classes of which it has enough samples.

    Attributes:
        release, tier: whose trunk the features are of.
        classes: (G,) uint8, ascending.
        means: (G, 64) float16, finite.
        counts: (G,) uint8 up to 10: 2 to this power, or up to twice as many, samples stand behind a mean.
    """

    task: Name
    label_space: Name
    round: Count
    release: Count
    tier: Tier
    classes: Array
    means: Array
    counts: Array

    proxy: ClassVar[str] = ""
    """Hash of the proxy set that was answered: none."""

    def __post_init__(self) -> None:
        held = self.classes.shape
        if len(held) != 1:
            raise LocalProtocolError("wrong-shape", f"classes must be u1[G], not {self.classes.dtype}{list(held)}")
        expected = (("classes", "u1", held), ("means", "f2", (*held, FEATURES)), ("counts", "u1", held))
        for name, dtype, shape in expected:
            array: Array = getattr(self, name)
            if (array.dtype, array.shape) != (dtype, shape):
                told = f"{array.dtype}{list(array.shape)}"
                raise LocalProtocolError("wrong-shape", f"{name} must be {dtype}{list(shape)}, not {told}")
        classes = self.classes.data
        if any(after <= before for before, after in pairwise(classes)):
            raise LocalProtocolError("wrong-shape", "classes must ascend")
        if max(self.counts.data, default=0) > MOST_COUNT:
            raise LocalProtocolError("wrong-counts", f"a count's level is above {MOST_COUNT}")
        if not np.isfinite(unpack(self.means)).all():
            raise LocalProtocolError("not-finite", "a class mean holds NaN or infinity")


def count_levels(counts: I8) -> npt.NDArray[np.uint8]:
    """Counts (G,) int64 ≥ 1 as levels (G,) uint8: log2, rounded down, at most `MOST_COUNT`."""
    return np.log2(counts).astype(np.int64).clip(0, MOST_COUNT).astype(np.uint8)


def told_arrays(means: F4, counts: I8) -> tuple[Array, Array, Array]:
    """Classes, means and counts as they travel.

    Args:
        means: (C, 64) float32.
        counts: (C,) int64, samples behind each; 0 for classes that are not told.

    Raises:
        LocalProtocolError: ``not-finite``: a mean is too large for half precision, or was not finite.
    """
    told = np.flatnonzero(counts)
    with np.errstate(over="ignore"):
        half = means[told].astype(np.float16)
    if not np.isfinite(half).all():
        raise LocalProtocolError("not-finite", "a class mean is not finite in half precision")
    return pack(told.astype(np.uint8)), pack(half), pack(count_levels(counts[told]))


def told_values(report: PrototypeReport, classes: int) -> tuple[F4, I8]:
    """Undo `told_arrays`: means (C, 64) float32, zeros where nothing was told, and counts (C,) int64, 0 there.

    Args:
        report: of which every class is below `classes`.
        classes: C.
    """
    at = unpack(report.classes).astype(np.int64)
    means, counts = np.zeros((classes, FEATURES), np.float32), np.zeros(classes, np.int64)
    means[at] = unpack(report.means)
    counts[at] = np.int64(1) << unpack(report.counts).astype(np.int64)
    return means, counts
