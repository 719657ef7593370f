"""Ensemble by the mean of logits (FedDF; Lin et al. 2020): a device that excludes a class can veto it.

A softmax forgets only what is added to all logits of a sample, and that cancels in the softmax of a mean: logarithms of
probabilities serve as logits. The same pool of Gaussian forecasts is the mean weighted by precision.
"""

from __future__ import annotations

import numpy as np

from broker_server.strategies.base import F4, F8, Opinion, Strategy, opinion_of

LEAST = 1e-7
"""Smaller probabilities count as this: what is left of them in float32 is rounding, and a 0 would outvote everybody."""


class FedDf(Strategy):
    """Every device counts the same on every sample; the shared model speaks only when no device does."""

    def teacher(self) -> Opinion:
        """Average what was added, in logits or natural parameters."""
        if not len(self):
            return self.shared
        return self._classes() if self.shared.spread is None else self._forecasts()

    def _classes(self) -> Opinion:
        logits: F8 = np.zeros(self.shared.value.shape)
        for ballot in self.ballots():
            logits += np.log(np.maximum(opinion_of(ballot.votes).value, LEAST), dtype=np.float64)
        return Opinion(softmax(logits / len(self)))

    def _forecasts(self) -> Opinion:
        precision, pull = np.zeros(self.shared.value.shape), np.zeros(self.shared.value.shape)
        for ballot in self.ballots():
            opinion = opinion_of(ballot.votes)
            assert opinion.spread is not None
            own = 1 / np.square(opinion.spread, dtype=np.float64)
            precision += own
            pull += own * opinion.value
        spread = np.sqrt(len(self) / precision)
        return Opinion((pull / precision).astype(np.float32), spread.astype(np.float32))


def softmax(logits: F8) -> F4:
    """Probabilities, (N, C) float32, of logits (N, C)."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), np.float32)
