"""How much a sample looks like what a device has seen: in-distribution p-values on features. No torch.

Owns the statistics of one device's features; owns no vote. Mahalanobis distance to the mean (after Lee et al. 2018, "A
simple unified framework for detecting out-of-distribution samples and adversarial attacks"), turned into an empirical
p-value against the device's own samples. Forecasters say so of each window; classifiers answer with `ratio_head`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Density:
    """Statistics of a device's own features.

    Attributes:
        mean: (K,) float32, whitened.
        whiten: (K, K) float32, features @ whiten have unit covariance.
        reference: (N,) float32, sorted distances of the device's own samples.
    """

    mean: FloatArray
    whiten: FloatArray
    reference: FloatArray

    @classmethod
    def fit(cls, features: FloatArray, shrink: float = 0.1) -> Density:
        """Learn from a device's own samples.

        Args:
            features: (N, K) float32, N ≥ 1.
            shrink: share of the isotropic part in the covariance, above 0: few samples are enough then.
        """
        mean = features.mean(0).astype(np.float64)
        centred = features - mean
        covariance = centred.T @ centred / len(features)
        width = features.shape[1]
        isotropic = max(np.trace(covariance) / width, 1e-6) * np.eye(width)
        values, vectors = np.linalg.eigh((1 - shrink) * covariance + shrink * isotropic)
        whiten = (vectors / np.sqrt(values)).astype(np.float32)
        density = cls((mean @ whiten).astype(np.float32), whiten, np.zeros(0, np.float32))
        return cls(density.mean, whiten, np.sort(density.distance(features)))

    def distance(self, features: FloatArray) -> FloatArray:
        """Squared Mahalanobis distance to the mean, (N,) float32 ≥ 0."""
        return np.asarray(np.square(features @ self.whiten - self.mean).sum(1), np.float32)

    def p_value(self, features: FloatArray) -> FloatArray:
        """Share of the device's own samples that lie at least as far out, (N,) float32 in (0, 1]."""
        nearer = np.searchsorted(self.reference, self.distance(features), side="left")
        return ((len(self.reference) - nearer + 1) / (len(self.reference) + 1)).astype(np.float32)
