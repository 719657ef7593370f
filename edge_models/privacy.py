"""How few examples a device keeps to itself, and what noise on its statistics is worth. No torch.

Owns the rule of least examples and the account of Gaussian noise in Rényi differential privacy; owns no noise, no
statistic and no message (`private_odds` has them).
"""

from __future__ import annotations

from math import inf, log

import numpy as np
import numpy.typing as npt

I8 = npt.NDArray[np.int64]
U1 = npt.NDArray[np.uint8]
_ORDERS = 1 + np.geomspace(1e-4, 1e7, 5000)


def held_classes(labels: I8, classes: int, k: int) -> U1:
    """Name the classes that may be spoken of: (classes,) uint8, 1 for those with at least k labels.

    Args:
        labels: (N,) int64; labels outside [0, classes) are nobody's.
        classes: C.
        k: 1 or more.
    """
    known = labels[(labels >= 0) & (labels < classes)]
    held: U1 = (np.bincount(known, minlength=classes) >= k).astype(np.uint8)
    return held


def noise_cost(sigma: float) -> float:
    """Cost of one noisy statistic as the slope of its Rényi curve: ε(order) = order · cost.

    Gaussian noise of standard deviation sigma on a statistic that one sample, added or removed, moves by at most 1 in
    L2 costs order / (2 sigma²) (Mironov 2017, "Rényi differential privacy", corollary 3). Costs of several statistics
    of the same samples add up, also when a later one depends on what an earlier one told (proposition 1 there).

    Args:
        sigma: 0 or more; infinite cost at 0.
    """
    return 0.5 / sigma**2 if sigma > 0 else inf


def epsilon_of(cost: float, delta: float) -> float:
    """Turn a cost into the ε of (ε, δ)-differential privacy, after Balle et al. 2020, theorem 21.

    Args:
        cost: slope of the Rényi curve, ≥ 0.
        delta: in (0, 1), well below one over the number of samples.
    """
    if cost == 0:
        return 0.0
    if cost == inf:
        return cost
    curve = _ORDERS * cost + np.log1p(-1 / _ORDERS) - (log(delta) + np.log(_ORDERS)) / (_ORDERS - 1)
    return max(0.0, float(curve.min()))


def sigma_for(epsilon: float, delta: float) -> float:
    """The least noise (to one part in 10,000) with which one statistic of sensitivity 1 stays within (ε, δ).

    Args:
        epsilon: above 0.
        delta: in (0, 1).
    """
    low, high = 1e-6, 1e9
    while high / low > 1 + 1e-4:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if epsilon_of(noise_cost(middle), delta) <= epsilon else (middle, high)
    return high
