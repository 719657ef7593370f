"""How much a sample looks like what a device has seen: in-distribution p-values on features. No torch.

Owns the statistics of one device's features; owns no vote. Tied-covariance Mahalanobis distance to the nearest class
mean (Lee et al. 2018, "A simple unified framework for detecting out-of-distribution samples and adversarial attacks"),
turned into an empirical p-value against the device's own samples.
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
        means: (G, K) float32, one per class held (one in all for forecasts), whitened.
        whiten: (K, K) float32, features @ whiten have unit tied covariance.
        reference: (N,) float32, sorted distances of the device's own samples.
    """

    means: FloatArray
    whiten: FloatArray
    reference: FloatArray

    @classmethod
    def fit(cls, features: FloatArray, classes: npt.NDArray[np.int64] | None = None, shrink: float = 0.1) -> Density:
        """Learn from a device's own samples.

        Args:
            features: (N, K) float32, N ≥ 1.
            classes: (N,) int64; None where there are none.
            shrink: share of the isotropic part in the covariance, above 0: few samples are enough then.
        """
        groups = np.zeros(len(features), np.int64) if classes is None else classes
        names, member = np.unique(groups, return_inverse=True)
        means = np.stack([features[member == g].mean(0) for g in range(len(names))]).astype(np.float64)
        centred = features - means[member]
        covariance = centred.T @ centred / len(features)
        width = features.shape[1]
        isotropic = max(np.trace(covariance) / width, 1e-6) * np.eye(width)
        values, vectors = np.linalg.eigh((1 - shrink) * covariance + shrink * isotropic)
        whiten = (vectors / np.sqrt(values)).astype(np.float32)
        density = cls((means @ whiten).astype(np.float32), whiten, np.zeros(0, np.float32))
        return cls(density.means, whiten, np.sort(density.distance(features)))

    def distance(self, features: FloatArray) -> FloatArray:
        """Squared Mahalanobis distance to the nearest class mean, (N,) float32 ≥ 0."""
        whitened = features @ self.whiten
        squares = (whitened**2).sum(1)[:, None] - 2 * whitened @ self.means.T + (self.means**2).sum(1)
        nearest: FloatArray = squares.min(1).clip(0).astype(np.float32)
        return nearest

    def p_value(self, features: FloatArray) -> FloatArray:
        """Share of the device's own samples that lie at least as far out, (N,) float32 in (0, 1]."""
        nearer = np.searchsorted(self.reference, self.distance(features), side="left")
        return ((len(self.reference) - nearer + 1) / (len(self.reference) + 1)).astype(np.float32)
