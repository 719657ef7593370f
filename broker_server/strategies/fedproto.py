"""Weighted means of class means (FedProto; Tan et al. 2022)."""

from __future__ import annotations

import numpy as np

from broker_server.strategies.prototypes import PrototypeSharing
from edge_models.prototypes import Prototypes


class FedProto(PrototypeSharing):
    """A device counts in a class by its count of it."""

    def result(self) -> Prototypes:
        """Average class by class what devices sent."""
        total, counts = np.zeros((self.outputs, self.features)), np.zeros((self.outputs, 1))
        for sent in self.newest():
            total[sent.classes] += sent.counts[:, None] * sent.means.astype(np.float64)
            counts[sent.classes] += sent.counts[:, None]
        return self.shared((total / np.maximum(counts, 1)).astype(np.float32))
