"""Prototypes that the server trains to lie apart (FedTGP; Zhang et al. 2024): class means of skewed devices blur.

Each class has a learnable vector that a small network turns into its prototype (Linear, ReLU, Linear). They are trained
by contrast: each class mean that a device sent must be nearer to its own class's prototype than to any other, by a
margin,

    loss = cross-entropy over classes of -(|P_i - p_c| + [c is the class of P_i] · margin)

where the margin adapts: the widest gap between a class's centre and the nearest other one, at most 100. In an epoch a
class mean is drawn as often as it counts in its class: once each where all count alike, which is the rule as published.
What is learnt is kept from round to round. Needs torch, but only when it trains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from broker_server.strategies.prototypes import F4, F8, I8, PULL, PrototypeSharing
from edge_models.nearest_prototype import distances
from edge_models.prototypes import Prototypes
from edge_protocol.task import FEATURES

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

MARGIN_LIMIT = 100.0
EPOCHS = 100
BATCH = 10
LEARNING_RATE = 0.01
"""As published: plain SGD."""


class FedTGP(PrototypeSharing):
    """Trainable prototypes under a contrastive loss with an adaptive margin.

    Args:
        outputs, features, pull: as for every rule.
        epochs: passes of the server over the class means of a round.
        learning_rate: of its SGD.
        seed: of the first prototypes and the order of the batches.
    """

    def __init__(
        self,
        outputs: int,
        features: int = FEATURES,
        pull: float = PULL,
        *,
        epochs: int = EPOCHS,
        learning_rate: float = LEARNING_RATE,
        seed: int = 0,
    ) -> None:
        super().__init__(outputs, features, pull)
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.seed = seed
        self._learnt: tuple[nn.Sequential, torch.Generator] | None = None

    def result(self) -> Prototypes:
        """Train on from where the last call ended, and return the prototypes: call it once a round."""
        sent = list(self.newest())
        if not any(len(one.classes) for one in sent):
            return self.shared(np.zeros((self.outputs, self.features), np.float32))
        points = np.concatenate([one.means for one in sent])
        labels = np.concatenate([one.classes for one in sent])
        weights = weights_of(labels, np.concatenate([one.counts for one in sent]))
        if self._learnt is None:
            self._learnt = _fresh(self.outputs, self.features, self.seed)
        return self.shared(self._train(*self._learnt, points, labels, weights))

    def _train(self, maker: nn.Sequential, order: torch.Generator, points: F4, labels: I8, weights: F8) -> F4:
        """Bring each class mean nearer to its own prototype than to all others; return all prototypes, (C, K)."""
        import torch  # noqa: PLC0415 - the server reads the rules where it has no torch
        from torch.nn import functional  # noqa: PLC0415

        x, y = torch.from_numpy(points), torch.from_numpy(labels)
        everyone, margin = torch.arange(self.outputs), margin_of(points, labels, weights)
        optimiser = torch.optim.SGD(maker.parameters(), lr=self.learning_rate)
        for _ in range(self.epochs):
            for batch in torch.split(_drawn(torch.from_numpy(weights), order), BATCH):
                prototypes: Tensor = maker(everyone)
                away = torch.cdist(x[batch], prototypes) + margin * functional.one_hot(y[batch], self.outputs)
                optimiser.zero_grad()
                functional.cross_entropy(-away, y[batch]).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
        with torch.no_grad():
            return np.asarray(maker(everyone).numpy(), np.float32)


def weights_of(labels: I8, counts: I8) -> F8:
    """How much each class mean counts in its class, with mean 1 there.

    Args:
        labels: (P,) int64, classes.
        counts: (P,) int64 ≥ 1.
    """
    return np.asarray(counts * np.bincount(labels)[labels] / np.bincount(labels, counts)[labels])


def margin_of(points: F4, labels: I8, weights: F8) -> float:
    """Widest gap between a class's centre and the nearest other one, at most `MARGIN_LIMIT`; 0 for a single class.

    Args:
        points: (P, K) float32, class means of devices, P ≥ 1.
        labels: (P,) int64, their classes.
        weights: (P,) float64, of each in its class.
    """
    classes = np.unique(labels)
    centres = np.stack([np.average(points[labels == c], axis=0, weights=weights[labels == c]) for c in classes])
    gaps = distances(centres, centres)
    np.fill_diagonal(gaps, np.inf)
    return min(float(gaps.min(axis=1).max()), MARGIN_LIMIT) if len(centres) > 1 else 0.0


def _drawn(weights: Tensor, order: torch.Generator) -> Tensor:
    """Which class means an epoch takes, in what order: each as often as its weight, one draw more or less.

    Systematic resampling (Kitagawa 1996). A weight on the loss does the same, and diverges where one has most.
    """
    import torch  # noqa: PLC0415

    at = torch.rand(1, generator=order, dtype=torch.float64) + torch.arange(len(weights))
    drawn = torch.searchsorted(weights.cumsum(0), at, right=True).clamp(max=len(weights) - 1)
    return drawn[torch.randperm(len(weights), generator=order)]


def _fresh(outputs: int, features: int, seed: int) -> tuple[nn.Sequential, torch.Generator]:
    """Vectors and network before any training, and what draws the order of the batches."""
    import torch  # noqa: PLC0415
    from torch import nn  # noqa: PLC0415

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        maker = nn.Sequential(
            nn.Embedding(outputs, features), nn.Linear(features, features), nn.ReLU(), nn.Linear(features, features)
        )
    return maker, torch.Generator().manual_seed(seed)
