"""Answers by the nearest prototype, as FedProto and FedTGP do (Tan et al. 2022); owns no prototype. No torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_models.prototypes import Prototypes

F4 = npt.NDArray[np.float32]


def distances(features: F4, points: F4) -> F4:
    """Euclidean distance of features (N, K) float32 to points (G, K) float32: (N, G) float32 ≥ 0."""
    a, b = features.astype(np.float64), points.astype(np.float64)
    squares = (a**2).sum(1)[:, None] - 2 * a @ b.T + (b**2).sum(1)
    return np.asarray(np.sqrt(squares.clip(0)), np.float32)


def prototype_logits(features: F4, prototypes: Prototypes) -> F4:
    """Minus the distance to each class's prototype: (N, C) float32; minus infinity for a class without one.

    Args:
        features: (N, K) float32 of a student.
        prototypes: of C classes.
    """
    return np.where(prototypes.held.astype(bool), -distances(features, prototypes.means), -np.inf).astype(np.float32)
