"""FedAvg whose devices are held near where they started (FedProx; Li et al. 2020). Owns mu; the mean is FedAvg's."""

from __future__ import annotations

import msgspec

from broker_server.strategies.fedavg import FedAvg
from broker_server.strategies.weights import State
from edge_models.local_settings import LocalSettings

MU = 0.01
"""Strength of the pull; the paper tries 0.001, 0.01, 0.1 and 1, and this is the mildest that it reports as best."""


class FedProx(FedAvg):
    """Each device adds mu/2 · |weights - start|² to its loss.

    Args:
        start: as for every rule.
        mu: strength of the pull, ≥ 0; 0 is FedAvg.
    """

    def __init__(self, start: State, mu: float = MU) -> None:
        super().__init__(start)
        self.mu = mu

    def phases(self, settings: LocalSettings) -> tuple[LocalSettings, ...]:
        """One phase, with the pull."""
        return (msgspec.structs.replace(settings, proximal=self.mu),)
