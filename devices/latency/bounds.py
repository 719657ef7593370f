"""Percentiles and what may be said of them: early stopping as in the MLPerf Inference Rules; owns no latency.

A percentile read off n latencies is an estimate. Its upper bound holds with 99 % confidence: set aside the t - 1
highest latencies, where t is the largest count of slow queries that n draws show with a chance of at most 1 % when the
share of slow queries is what the percentile allows; the highest latency that is left is the bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import count
from math import exp, lgamma, log
from typing import Annotated

import msgspec
from msgspec import Meta

CONFIDENCE = 0.99
PERCENTILES = (50.0, 90.0, 95.0, 97.0, 99.0, 99.9)
_NEGLIGIBLE = 1e-18
Milliseconds = Annotated[float, Meta(ge=-1e12, le=1e12)]
"""Up to 31 years. Of a stage that is told as what others left, below 0 where two clocks disagree."""


class Percentile(msgspec.Struct, frozen=True):
    """One percentile of latencies.

    Attributes:
        percentile: such as 99.9.
        ms: the latency at that rank, milliseconds.
        bound_ms: with 99 % confidence the true percentile is not higher; None: too few queries to say so.
        needs: queries that a bound needs at least.
    """

    percentile: float
    ms: Milliseconds
    bound_ms: Milliseconds | None
    needs: int


def percentile_of(ordered: Sequence[int], percentile: float) -> Percentile:
    """Estimate a percentile and its bound.

    Args:
        ordered: nanoseconds, rising, at least one.
        percentile: between 0 and 100, neither included.
    """
    queries = len(ordered)
    rank = min(int(queries * percentile / 100 + _NEGLIGIBLE), queries - 1)
    aside = discards(queries, percentile)
    bound_ms = None if aside is None else ordered[queries - 1 - aside] / 1e6
    return Percentile(percentile, ordered[rank] / 1e6, bound_ms, least_queries(percentile))


@lru_cache(maxsize=256)
def discards(queries: int, percentile: float) -> int | None:
    """How many of the highest latencies are set aside before the bound is read off; None: too few queries."""
    share = (100 - percentile) / 100
    low, high = 0, queries
    while low < high:
        middle = (low + high + 1) // 2
        if binomial_cdf(middle, queries, share) <= 1 - CONFIDENCE:
            low = middle
        else:
            high = middle - 1
    return low - 1 if low else None


@lru_cache(maxsize=64)
def least_queries(percentile: float) -> int:
    """Queries below which nothing can be said of a percentile."""
    share = (100 - percentile) / 100
    return next(queries for queries in count(2) if binomial_cdf(1, queries, share) <= 1 - CONFIDENCE)


def binomial_cdf(most: int, draws: int, share: float) -> float:
    """Chance of at most `most` hits in `draws` independent draws that hit with chance `share`.

    Summed from the largest term down; exact to about 1e-8 relative for a million draws.
    """
    if most >= draws:
        return 1.0
    coefficient = lgamma(draws + 1) - lgamma(most + 1) - lgamma(draws - most + 1)
    term = exp(coefficient + most * log(share) + (draws - most) * log(1 - share))
    if most > draws * share:
        return 1 - _upper(most, draws, share, term)
    total = term
    for hits in range(most, 0, -1):
        term *= hits * (1 - share) / ((draws - hits + 1) * share)
        total += term
        if term <= total * _NEGLIGIBLE:
            break
    return total


def _upper(most: int, draws: int, share: float, term: float) -> float:
    """Chance of more than `most` hits, for `most` above the mean; `term` is the chance of exactly `most`."""
    total = 0.0
    for hits in range(most, draws):
        term *= (draws - hits) * share / ((hits + 1) * (1 - share))
        total += term
        if term <= total * _NEGLIGIBLE:
            break
    return total
