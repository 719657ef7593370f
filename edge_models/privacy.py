"""How to make a class report tell less of single samples: shards, noisy votes, and what they cost. No torch.

Owns which classes may be spoken of, the vote of shards, its noise and the account of it; owns no head and no message.
The device's samples are split into disjoint shards, a head is fitted on each, and what is reported of a proxy is the
noisy favourite of the shards' votes (PATE's GNMax, Papernot et al. 2018, with the device as the teachers' ensemble).
A sample is in one shard, so it moves one vote for each proxy.
"""

from __future__ import annotations

from hashlib import blake2b
from math import exp, log
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from edge_protocol.errors import DataError
from edge_protocol.votes import CONFIDENCE, ODDS

F4 = npt.NDArray[np.float32]
I8 = npt.NDArray[np.int64]
U1 = npt.NDArray[np.uint8]

RATHER_OWN = 1.0
"""Odds of "own sample" against "proxy" from which on a shard votes for its likeliest class, and is silent below."""
_CONFIDENCE, _ODDS = float(CONFIDENCE[2]), float(ODDS[4])
"""What a vote that won is reported with; no level depends on anything but the winner."""
_ORDERS = 1 + np.geomspace(1e-4, 1e7, 5000)


class PrivacySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a device keeps to itself.

    Attributes:
        k: a class of which the device has fewer examples is not spoken of.
        sigma: standard deviation of the noise on each count of votes; 0 for reports without shards and noise.
        shards: that the samples are split into when there is noise.
    """

    k: Annotated[int, Meta(ge=1, le=1_000_000)] = 3
    sigma: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    shards: Annotated[int, Meta(ge=2, le=1000)] = 10


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


def shards_of(raw: npt.NDArray[np.generic], shards: int) -> I8:
    """Say which shard each sample is in: (N,) int64 in [0, shards), by the hash of its bytes.

    So it depends on no other sample: one more or one fewer changes one shard. Copies fall into the same shard.

    Args:
        raw: (N, ...) the samples.
        shards: 1 or more.
    """
    digests = (blake2b(np.ascontiguousarray(sample).tobytes(), digest_size=8).digest() for sample in raw)
    return np.fromiter((int.from_bytes(digest, "big") % shards for digest in digests), np.int64, len(raw))


def count_votes(odds: F4, held: U1) -> I8:
    """Count the shards' votes: (N, C + 1) int64, the last column counts those that are silent.

    Args:
        odds: (M, N, C) float32 ≥ 0, each shard's odds of "own sample of class c" against "a proxy"; all 0 for a shard
            without samples.
        held: (C,) 1 for classes that may be spoken of.

    Raises:
        DataError: odds are NaN, infinite, or not of that shape.
    """
    if odds.ndim != 3 or odds.shape[2] != len(held) or not np.isfinite(odds).all():  # noqa: PLR2004 - shards, proxies, classes
        raise DataError(f"odds of shards must be finite (M, N, {len(held)}), not {odds.shape}")
    spoken = odds * held
    outcome = np.where(spoken.sum(2) >= RATHER_OWN, spoken.argmax(2), len(held))
    counts: I8 = (outcome[..., None] == np.arange(len(held) + 1)).sum(0)
    return counts


def private_odds(odds: F4, held: U1, sigma: float, rng: np.random.Generator | None = None) -> F4:
    """Report the noisy favourite of the shards for each proxy, in place of odds.

    Args:
        odds: (M, N, C) float32, as `count_votes` takes them.
        held: (C,) 1 for classes that may be spoken of; taken as public.
        sigma: standard deviation of the noise on each count.
        rng: of the noise; None for one that the system seeds. Whoever knows its seed can take the noise off.

    Returns:
        (N, C) float32: 0 where the shards are silent, else one odds and confidence for every winner.

    Raises:
        DataError: odds are NaN, infinite, or not of that shape.
    """
    counts = count_votes(odds, held)
    open_to = np.append(held, 1).astype(bool)
    noisy = counts + (rng or np.random.default_rng()).normal(0, sigma, counts.shape)
    winner = np.where(open_to, noisy, -np.inf).argmax(1)
    others = max(int(held.sum()) - 1, 0)
    told = np.full((len(held) + 1, len(held)), _ODDS * (1 - _CONFIDENCE) / max(others, 1))
    np.fill_diagonal(told, _ODDS * _CONFIDENCE if others else _ODDS)
    told[-1] = 0
    return np.asarray(told[winner] * held, np.float32)


def votes_cost(queries: int, sigma: float) -> float:
    """Cost of noisy votes as the slope of a Rényi curve: ε(order) = order · cost, for one sample added or removed.

    One sample moves one vote for each query: two counts change by 1, sensitivity √2 in L2, order / sigma² for a query
    whatever the counts are (GNMax, Papernot et al. 2018, proposition 8). Costs of rounds add up (Mironov 2017).

    Args:
        queries: proxies answered, over all rounds.
        sigma: standard deviation of the noise on each count; infinite cost at 0.
    """
    if not queries:
        return 0.0
    return queries / sigma**2 if sigma > 0 else float("inf")


def epsilon_of(cost: float, delta: float) -> float:
    """Turn a cost into the ε of (ε, δ)-differential privacy, after Balle et al. 2020, theorem 21.

    Args:
        cost: slope of the Rényi curve, ≥ 0.
        delta: in (0, 1), well below one over the number of samples.
    """
    if cost == 0:
        return 0.0
    if cost == float("inf"):
        return cost
    curve = _ORDERS * cost + np.log1p(-1 / _ORDERS) - (log(delta) + np.log(_ORDERS)) / (_ORDERS - 1)
    return max(0.0, float(curve.min()))


def sigma_for(epsilon: float, delta: float, queries: int) -> float:
    """The least noise (to one part in 10,000) with which `queries` noisy votes stay within (ε, δ).

    Args:
        epsilon: above 0.
        delta: in (0, 1).
        queries: proxies answered, over all rounds; 1 or more.
    """
    low, high = 1e-6, 1e9
    while high / low > 1 + 1e-4:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if epsilon_of(votes_cost(queries, middle), delta) <= epsilon else (middle, high)
    return high


def most_right(epsilon: float, delta: float = 0.0) -> float:
    """How often the best attacker can be right when he tells at even odds whether a sample was there, 0.5 to 1.

    Kairouz, Oh & Viswanath 2015: (e^ε + δ) / (1 + e^ε).
    """
    return 1 - (1 - delta) / (1 + exp(min(epsilon, 500)))
