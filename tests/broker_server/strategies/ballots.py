"""Votes written the short way, for the tests of the strategies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_protocol import votes
from edge_protocol.arrays import pack
from edge_protocol.messages import ClassVotes, ForecastVotes


def class_votes(
    classes: Sequence[int],
    confidence: int = 3,
    density: int | Sequence[int] = 5,
    held: Sequence[int] = (1, 1, 1),
) -> ClassVotes:
    """Votes for classes, all with one level of confidence, and of one density or several."""
    n = len(classes)
    return ClassVotes(
        pack(np.array(classes, np.uint8)),
        pack(np.full(n, confidence, np.uint8)),
        pack(np.broadcast_to(np.array(density, np.uint8), n)),
        pack(np.array(held, np.uint8)),
    )


def forecast_votes(mean: Sequence[float], spread: float = 1.0, horizons: int = 1) -> ForecastVotes:
    """Forecasts of the same mean at each horizon, all with one spread."""
    values = np.repeat(np.array(mean, np.float16)[:, None], horizons, axis=1)
    return ForecastVotes(pack(values), pack(np.full_like(values, spread)))


def forecasts(mean: Sequence[float], spread: Sequence[float]) -> ForecastVotes:
    """Forecasts at one horizon as the wire takes them."""
    return votes.forecast_votes(*(np.array(each, np.float32)[:, None] for each in (mean, spread)))
