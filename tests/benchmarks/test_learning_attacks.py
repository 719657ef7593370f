"""Figures of membership inference, on scores whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.learning.attacks import area, caught, interval, likelihood_ratios, most_caught, roc


def test_a_perfect_score_a_coin_and_an_inverted_one() -> None:
    """Area 1, about 0.5, 0; equal scores are a coin whatever their order."""
    rng = np.random.default_rng(0)
    member = rng.random((4, 500)) < 0.5
    assert area(member.astype(float), member) == 1
    assert area(-member.astype(float), member) == 0
    assert area(np.zeros(member.shape), member) == pytest.approx(0.5)
    assert area(rng.random(member.shape), member) == pytest.approx(0.5, abs=0.04)
    assert caught(member.astype(float), member) == 1
    assert caught(np.zeros(member.shape), member) == pytest.approx(0.01)


def test_the_curve_by_hand() -> None:
    """Two members, two others, one tie."""
    false, true = roc(np.array([[3.0, 2.0, 2.0, 1.0]]), np.array([[True, True, False, False]]))
    assert false.tolist() == [0, 0, 0.5, 1]
    assert true.tolist() == [0, 0.5, 1, 1]


def test_shadows_find_what_a_threshold_drowns_and_find_nothing_where_nothing_is() -> None:
    """Samples of very different difficulty: calibration sees the small shift; without a shift it guesses."""
    rng = np.random.default_rng(1)
    member = rng.random((8, 2000)) < 0.5
    difficulty = rng.normal(0, 10, 2000)
    noise = rng.normal(0, 1, member.shape)
    shifted = difficulty + 2 * member + noise
    assert area(shifted, member) < 0.6
    assert area(likelihood_ratios(shifted, member), member) > 0.8
    assert area(likelihood_ratios(difficulty + noise, member), member) == pytest.approx(0.5, abs=0.02)


def test_an_interval_holds_its_value_and_widens_with_fewer_samples() -> None:
    """Resampled by sample, with all its runs."""
    rng = np.random.default_rng(2)
    member = rng.random((2, 1000)) < 0.5
    scores = member + rng.normal(0, 1, member.shape)
    many = interval(area, scores, member, rng, 50)
    few = interval(area, scores[:, :50], member[:, :50], rng, 50)
    assert many.low < many.value < many.high
    assert few.high - few.low > many.high - many.low


def test_the_proven_limit_follows_from_epsilon() -> None:
    """At ε = 0 the attacker guesses; at false positives of 1 / (1 + e^ε) he is as right as he can be."""
    assert most_caught(0, 0) == pytest.approx(0.01)
    assert most_caught(2, 1e-5) == pytest.approx(0.0739, abs=1e-4)
    even = 1 / (1 + np.exp(2))
    assert most_caught(2, 0, even) == pytest.approx(1 - even)
    assert most_caught(50, 0) == pytest.approx(1)
