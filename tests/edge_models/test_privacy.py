"""The rule of least examples, and the account of noise."""

from __future__ import annotations

from math import erfc, exp, inf, sqrt

import numpy as np

from edge_models.privacy import epsilon_of, held_classes, noise_cost, sigma_for


def test_only_classes_with_enough_examples_are_spoken_of() -> None:
    """Two examples are too few for k = 3; labels outside the classes are nobody's."""
    labels = np.array([0, 0, 0, 1, 1, -1, 9])
    assert held_classes(labels, 3, 3).tolist() == [1, 0, 0]


def test_the_account_adds_up() -> None:
    """More noise costs less, more reports more; the noise that is found keeps the promise; no report costs nothing."""
    assert epsilon_of(0, 1e-5) == 0
    assert epsilon_of(noise_cost(0), 1e-5) == inf
    assert epsilon_of(noise_cost(5), 1e-5) < epsilon_of(noise_cost(2.5), 1e-5)
    sigma = sigma_for(2.0, 1e-5)
    assert 1.99 < epsilon_of(noise_cost(sigma), 1e-5) <= 2.0


def test_renyi_accounting_allows_more_reports_than_adding_up_epsilons() -> None:
    """Reports of ε = 2 within ε = 8: four when epsilons are added (basic composition), more by their Rényi curves."""
    cost = noise_cost(sigma_for(2.0, 1e-5))
    reports = next(n for n in range(1, 100) if epsilon_of((n + 1) * cost, 1e-5) > 8)
    assert reports > 4


def test_the_price_of_a_gaussian_is_never_below_the_exact_one() -> None:
    """Against the exact δ(ε) of the Gaussian mechanism (Balle & Wang 2018, theorem 8) at several noises."""

    def phi(x: float) -> float:
        return 0.5 * erfc(-x / sqrt(2))

    for sigma in (0.5, 1.0, 2.0, 5.0):
        epsilon = epsilon_of(noise_cost(sigma), 1e-5)
        a, b = 0.5 / sigma, epsilon * sigma
        exact = phi(a - b) - exp(epsilon) * phi(-a - b)
        assert exact <= 1e-5
