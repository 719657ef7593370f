"""Gated recurrent unit (Cho et al. 2014), unrolled so that the exported graph keeps its weights' names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edge_models.students.base import Features
from edge_protocol.task import SeriesInput

_WIDTH = 64


class Unrolled(nn.Module):
    """One cell, applied step by step; the last state becomes the features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.of_input = nn.Linear(channels, 3 * _WIDTH)
        self.of_state = nn.Linear(_WIDTH, 3 * _WIDTH)
        self.features = Features(_WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """(N, steps, 4) → (N, 64)."""
        state = x.new_zeros(x.shape[0], _WIDTH)
        for step in range(x.shape[1]):
            state = self._cell(x[:, step], state)
        features: Tensor = self.features(state)
        return features

    def _cell(self, step: Tensor, state: Tensor) -> Tensor:
        reset_in, renew_in, fresh_in = self.of_input(step).chunk(3, dim=1)
        reset_state, renew_state, fresh_state = self.of_state(state).chunk(3, dim=1)
        renew = torch.sigmoid(renew_in + renew_state)
        fresh = torch.tanh(fresh_in + torch.sigmoid(reset_in + reset_state) * fresh_state)
        return fresh + renew * (state - fresh)


def trunk(spec: SeriesInput) -> nn.Module:
    """(N, steps, 4) → (N, 64)."""
    return Unrolled(spec.shape[1])
