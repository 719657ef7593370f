"""The plain mean of class scores (FedMD; Li and Wang 2019), as probabilities: those of any architecture compare.

The mean of logits is `feddf`. A forecast's mean and variance are those of the mixture.
"""

from __future__ import annotations

from broker_server.strategies.base import Fusion, Opinion, Strategy, opinion_of


class FedMd(Strategy):
    """Every device counts the same on every sample; the shared model speaks only when no device does."""

    def teacher(self) -> Opinion:
        """Average what was added."""
        if not len(self):
            return self.shared
        fusion = Fusion()
        for ballot in self.ballots():
            fusion.add(opinion_of(ballot.votes), 1.0)
        return fusion.result()
