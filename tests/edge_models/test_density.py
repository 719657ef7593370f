"""In-distribution p-values."""

from __future__ import annotations

import numpy as np

from edge_models.density import Density


def draw(n: int, centre: float = 0.0, seed: int = 0) -> np.ndarray:
    """Draw features around a centre."""
    return (centre + np.random.default_rng(seed).normal(size=(n, 64))).astype(np.float32)


def test_familiar_samples_get_uniform_p_values_and_strange_ones_small() -> None:
    """Samples of the same kind spread over (0, 1]; samples far away fall below one per cent."""
    density = Density.fit(draw(500))
    familiar, strange = density.p_value(draw(300, seed=1)), density.p_value(draw(300, 3.0, seed=2))
    assert 0.15 < familiar.mean() < 0.6
    assert strange.max() < 0.01
    assert familiar.min() > 0
    assert familiar.max() <= 1


def test_one_sample_is_enough() -> None:
    """A device with a single sample, or with constant features, gets finite p-values."""
    for features in (draw(1), np.zeros((5, 64), np.float32)):
        values = Density.fit(features).p_value(draw(3, seed=3))
        assert np.isfinite(values).all()
        assert values.min() > 0
