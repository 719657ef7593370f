"""The slow beginning is left out, a stall is not, and a run that goes on changing is called so."""

from __future__ import annotations

import numpy as np
import pytest

from devices.latency.steady import Steady, find_steady


def noisy(level: float, count: int, seed: int = 0) -> list[int]:
    """Latencies around a level."""
    return [int(x) for x in np.random.default_rng(seed).normal(level, level / 50, count)]


def test_an_even_run_counts_whole() -> None:
    """Noise of two per cent is no warm-up."""
    found = find_steady(noisy(1e6, 2000))
    assert (found.begins, found.steady) == (0, True)


def test_a_slow_beginning_is_left_out() -> None:
    """A tenth of the run at twice the latency goes, rounded up to whole groups, and the rest is even."""
    found = find_steady(noisy(2e6, 200) + noisy(1e6, 1800))
    assert (found.begins, found.steady) == (200, True)


def test_a_later_stall_stays() -> None:
    """Fifty slow queries in the middle are part of the truth."""
    found = find_steady(noisy(1e6, 900) + noisy(9e6, 50) + noisy(1e6, 1050))
    assert (found.begins, found.steady) == (0, True)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_drift_is_seen(sign: int) -> None:
    """A run that gets slower or faster by a half all the way is not steady."""
    found = find_steady([int(1e6 * (1 + sign * 0.5 * at / 2000)) for at in range(2000)])
    assert not found.steady
    assert found.drift is not None
    assert np.sign(found.drift) == sign


def test_a_run_that_never_settles_loses_nothing() -> None:
    """When no group of the first half is like the second half, nothing is left out and it is not steady."""
    found = find_steady(noisy(1e6, 1000) + noisy(3e6, 1000))
    assert (found.begins, found.steady) == (0, False)


def test_too_few_queries_are_not_judged() -> None:
    """Fewer than a query per group: no drift is claimed."""
    assert find_steady([1] * 39) == Steady(0, None, steady=False)
