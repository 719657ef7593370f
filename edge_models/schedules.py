"""Learning rates over the steps of a training, as plain numbers. No torch."""

from __future__ import annotations

import math

_WARM_UP = 0.2
"""Share of the steps on which the rate rises."""


def one_cycle(done: float) -> float:
    """Height of the learning rate, in (0, 1], after a share `done` in [0, 1) of the steps (Smith and Topin 2019)."""
    if done < _WARM_UP:
        return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * done / _WARM_UP))
    return 0.5 * (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP))) + 1e-5
