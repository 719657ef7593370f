"""Roadcast's own rule: a device speaks where it knows, none can outvote the rest, the shared model always speaks.

Probabilities are averaged, never logits. On a proxy x, device i asks for weight

    w_i(x) = density_i(x) · 2^(-age_i / half_life) · P_shared(class of x is one that i holds)      (classes)
    w_i(x) = density_i(x) · 2^(-age_i / half_life) · min(spread_shared / spread_i, 2)²               (forecasts)

and gets the share (1 - s) · min(w_i / max(Σ w, 1), cap). All that is left goes to the shared model: its own share s,
what the cap denies, and the samples that no device knows. So nothing that a device says about itself lifts it above
the cap.
Density-aware weights: Selective-FD, Shao et al. 2024. Ageing buffers of answers: after FedBuff, Nguyen et al. 2022.
"""

from __future__ import annotations

import numpy as np

from broker_server.strategies.base import F4, Ballot, Fusion, Opinion, Strategy, density_of, opinion_of
from edge_protocol.arrays import unpack
from edge_protocol.messages import ClassVotes

SHARPEST = 2.0
"""A forecaster's weight grows with its precision up to that of half the shared model's spread: the floor on spread."""


class FedDistill(Strategy):
    """Density-weighted, held-class aware, capped, with age decay and the shared model as a voter."""

    def teacher(self) -> Opinion:
        """Fuse what was added: one pass for the sum of the weights, one for the shares."""
        total = np.maximum(sum((self.weight(ballot) for ballot in self.ballots()), np.zeros(1, np.float32)), 1.0)
        fusion, left = Fusion(), np.ones_like(total)
        for ballot in self.ballots():
            share = (1 - self.settings.shared_share) * np.minimum(self.weight(ballot) / total, self.settings.device_cap)
            left = left - share
            fusion.add(opinion_of(ballot.votes), share)
        fusion.add(self.shared, np.maximum(left, 0.0))
        return fusion.result()

    def weight(self, ballot: Ballot) -> F4:
        """The weight a device asks for on each proxy: (N, 1), or (N, H) for forecasts, float32 ≥ 0."""
        weight: F4 = density_of(ballot.votes)[:, None] * np.float32(0.5 ** (ballot.age / self.settings.half_life))
        if isinstance(ballot.votes, ClassVotes):
            held = unpack(ballot.votes.held).astype(np.float32)
            return np.asarray(weight * (self.shared.value @ held)[:, None])
        assert self.shared.spread is not None
        spread = unpack(ballot.votes.spread).astype(np.float32)
        return np.asarray(weight * np.minimum(self.shared.spread / spread, SHARPEST) ** 2)
