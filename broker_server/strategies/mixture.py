"""Weights of a mixture from how likely each component makes what is known to be true; pure, owns no vote and no rule.

Expectation-maximisation with a Dirichlet prior (Dempster, Laird & Rubin 1977; McLachlan & Peel 2000). A component that
lies about what is known loses its weight, whatever it claims about itself; one that adds nothing new loses it too.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F4 = npt.NDArray[np.float32]
ITERATIONS = 50
SETTLED = 0.005
"""Weights that move by less than this, all together, have settled: what is left is beyond what the samples can tell."""
FLOOR, CEILING = 1e-2, 20.0
"""Likelihood ratios are clamped to this range: one sample neither ruins a component nor makes it."""


def mixture_weights(likelihood: F4, weight: F4, prior: F4, strength: float) -> F4:
    """Find the weights that make the samples likeliest.

    Args:
        likelihood: (n, A) float32 ≥ 0, of each component on each sample; only ratios within a sample matter.
        weight: (A,) float32 ≥ 0, what each sample counts.
        prior: (n,) float32 ≥ 0, not all 0; a component of prior 0 gets nothing.
        strength: how many samples the prior is worth, above 0.

    Returns:
        (n,) float32 ≥ 0, sum 1.
    """
    bounded = likelihood.clip(FLOOR, CEILING)
    start = prior / prior.sum()
    weights, total = start, weight.sum() + strength
    for _ in range(ITERATIONS):
        before = weights
        weights = (before * (bounded @ (weight / np.maximum(before @ bounded, 1e-12))) + strength * start) / total
        if np.abs(weights - before).sum() < SETTLED:
            break
    return np.asarray(weights, np.float32)
