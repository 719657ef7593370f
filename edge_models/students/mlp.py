"""MLP over a window with its time of day (STID; Shao et al. 2022); who the sensor is, its personal head learns."""

from __future__ import annotations

from torch import nn

from edge_models.students.base import Features, Residual
from edge_protocol.task import SeriesInput

_WIDTH = 64


def trunk(spec: SeriesInput) -> nn.Module:
    """(N, steps, 4) → (N, 64)."""
    steps, channels = spec.shape
    blocks = (
        Residual(nn.Sequential(nn.Linear(_WIDTH, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH))) for _ in range(2)
    )
    return nn.Sequential(nn.Flatten(), nn.Linear(steps * channels, _WIDTH), *blocks, Features(_WIDTH))
