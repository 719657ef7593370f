"""Plain averaging of probabilities (FedMD without its logits; Li and Wang 2019): the baseline to beat."""

from __future__ import annotations

from broker_server.strategies.base import Fusion, Opinion, Strategy, opinion_of


class Mean(Strategy):
    """Every device counts the same on every proxy; the shared model speaks only when no device does."""

    def teacher(self) -> Opinion:
        """Average what was added."""
        if not len(self):
            return self.shared
        fusion = Fusion()
        for ballot in self.ballots():
            fusion.add(opinion_of(ballot.votes), 1.0)
        return fusion.result()
