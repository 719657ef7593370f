"""Class prototypes: mean features of a device's samples, for rounds without proxies. No torch.

Owns means and the least number of samples; owns no noise, no trunk and no message.
Prototypes as in FedProto (Tan et al. 2022); a mean over fewer than k samples is close to a sample and is not given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_models.privacy import held_classes
from edge_protocol.errors import DataError

F4 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False, slots=True)
class Prototypes:
    """Mean features of classes.

    Attributes:
        means: (C, K) float32, zeros for classes that are not given.
        held: (C,) uint8, 1 for classes that are given.
    """

    means: F4
    held: npt.NDArray[np.uint8]


def class_prototypes(features: F4, labels: npt.NDArray[np.int64], classes: int, *, k: int) -> Prototypes:
    """Average the features of each class.

    Args:
        features: (N, K) float32.
        labels: (N,) int64; samples with labels outside [0, classes) are left out.
        classes: C.
        k: a class with fewer samples is not given.

    Raises:
        DataError: features hold NaN or infinity, or are not aligned with labels.
    """
    if features.ndim != 2 or len(features) != len(labels):  # noqa: PLR2004 - samples and features
        raise DataError(f"features {features.shape} and labels {labels.shape} are not aligned")
    if not np.isfinite(features).all():
        raise DataError("features hold NaN or infinity")
    held = held_classes(labels, classes, k)
    known = np.isin(labels, np.flatnonzero(held))
    sums = np.zeros((classes, features.shape[1]))
    np.add.at(sums, labels[known], features[known])
    counts = np.maximum(np.bincount(labels[known], minlength=classes), 1)[:, None]
    return Prototypes((sums / counts).astype(np.float32), held)
