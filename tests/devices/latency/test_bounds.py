"""What may be said of a percentile, against MLPerf's published results and against counting."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.latency.bounds import PERCENTILES, binomial_cdf, discards, least_queries, percentile_of


@pytest.mark.parametrize(
    ("queries", "percentile", "aside"), [(935_541, 90.0, 92_878), (276_475, 99.0, 2_642), (141, 90.0, 4)]
)
def test_as_many_are_set_aside_as_mlperf_published(queries: int, percentile: float, aside: int) -> None:
    """Two MLPerf v3.1 submissions of AGX Orin, and one run of LoadGen 6.0, say the same number."""
    assert discards(queries, percentile) == aside


@pytest.mark.parametrize(
    ("percentile", "least"), [(50.0, 11), (90.0, 64), (95.0, 130), (97.0, 219), (99.0, 662), (99.9, 6636)]
)
def test_the_least_number_of_queries_is_mlperfs(percentile: float, least: int) -> None:
    """With that many nothing is set aside and there is a bound; with one fewer there is none."""
    assert least_queries(percentile) == least
    assert discards(least, percentile) == 0
    assert discards(least - 1, percentile) is None


@given(draws=st.integers(1, 60), most=st.integers(0, 60), share=st.sampled_from([0.001, 0.01, 0.1, 0.5, 0.9]))
def test_the_binomial_sum_is_right(draws: int, most: int, share: float) -> None:
    """It equals the sum written out, on either side of the mean."""
    terms = (comb(draws, k) * share**k * (1 - share) ** (draws - k) for k in range(min(most, draws) + 1))
    assert binomial_cdf(most, draws, share) == pytest.approx(sum(terms), abs=1e-12)


def test_a_bound_is_the_highest_that_is_left() -> None:
    """Of 141 latencies four are set aside for p90, so the fifth highest is the bound; p99 has none."""
    ordered = [1_000_000 * rank for rank in range(141)]
    p90 = percentile_of(ordered, 90.0)
    assert (p90.ms, p90.bound_ms, p90.needs) == (126.0, 136.0, 64)
    assert percentile_of(ordered, 99.0).bound_ms is None


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=700))
def test_a_bound_is_never_below_its_percentile(latencies: list[int]) -> None:
    """Whatever was measured: the percentile is one of the latencies, and its bound not below it."""
    ordered = sorted(latencies)
    for percentile in PERCENTILES:
        found = percentile_of(ordered, percentile)
        assert round(found.ms * 1e6) in ordered
        assert found.bound_ms is None or found.bound_ms >= found.ms


def test_bounds_hold_as_often_as_they_say() -> None:
    """In 2,000 runs of 700 queries the true p90 lies above its bound in about one of a hundred."""
    rng = np.random.default_rng(5)
    true = -np.log(0.1) * 1e6
    missed = 0
    for _ in range(2000):
        bound = percentile_of(sorted(int(x) for x in rng.exponential(1e6, 700)), 90.0).bound_ms
        assert bound is not None
        missed += bound * 1e6 < true
    assert 2 <= missed <= 40
