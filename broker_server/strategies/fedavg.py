"""Averaging of whole states by examples (FedAvg; McMahan et al. 2017), batch statistics included."""

from __future__ import annotations

from broker_server.strategies.weights import WeightSharing


class FedAvg(WeightSharing):
    """Everything is shared, and devices train as they are told. Also the shared half of Ditto (Li et al. 2021)."""

    def shares(self, name: str) -> bool:
        """All of it."""
        del name
        return True
