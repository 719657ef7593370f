"""Averaging of trunks; each device keeps its own head (FedPer; Arivazhagan et al. 2019)."""

from __future__ import annotations

from broker_server.strategies.weights import WeightSharing, is_head


class FedPer(WeightSharing):
    """The trunk is shared, and devices train trunk and head together. No head ever leaves its device."""

    def shares(self, name: str) -> bool:
        """All but the head."""
        return not is_head(name)
