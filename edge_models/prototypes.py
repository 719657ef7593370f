"""Class prototypes: mean features of a device's samples, for rounds without proxies. No torch.

Owns means, the bound on one sample's weight in them, and the least number of samples; owns no trunk and no message.
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


def class_prototypes(
    features: F4,
    labels: npt.NDArray[np.int64],
    classes: int,
    *,
    k: int = 3,
    clip: float = 0.0,
    sigma: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Prototypes:
    """Average the features of each class.

    Args:
        features: (N, K) float32.
        labels: (N,) int64; samples with labels outside [0, classes) are left out.
        classes: C.
        k: a class with fewer samples is not given.
        clip: longer feature vectors are shortened to this L2 norm; 0 for no bound.
        sigma: noise of each coordinate as a multiple of what one sample can move a mean, 2 · clip / n.
        rng: of the noise; None for one that the system seeds.

    Returns:
        The prototypes. Each release costs 1 / (2 sigma²) in terms of `privacy.epsilon_of`, for one sample exchanged for
        another of its class; how many samples a class has is taken as public (Gaussian mechanism, Mironov 2017).

    Raises:
        DataError: features hold NaN or infinity, are not aligned with labels, or are to be noisy without a bound.
    """
    if features.ndim != 2 or len(features) != len(labels):  # noqa: PLR2004 - samples and features
        raise DataError(f"features {features.shape} and labels {labels.shape} are not aligned")
    if not np.isfinite(features).all():
        raise DataError("features hold NaN or infinity")
    if sigma and not clip:
        raise DataError("noise without a bound protects nobody: give clip, the largest norm of a feature vector")
    held = held_classes(labels, classes, k)
    known = np.isin(labels, np.flatnonzero(held))
    sums = np.zeros((classes, features.shape[1]))
    np.add.at(sums, labels[known], _clipped(features[known], clip))
    counts = np.maximum(np.bincount(labels[known], minlength=classes), 1)[:, None]
    noise = (rng or np.random.default_rng()).normal(0, 2 * clip * sigma, sums.shape) if sigma else 0.0
    return Prototypes(((sums + noise) / counts * held[:, None]).astype(np.float32), held)


def _clipped(features: F4, clip: float) -> npt.NDArray[np.float64]:
    wide = features.astype(np.float64)
    if not clip:
        return wide
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(wide * np.minimum(1, clip / np.maximum(norms, 1e-12)))
