"""Answers by the nearest prototype."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_models.nearest_prototype import distances, prototype_logits
from edge_models.prototypes import Prototypes


def test_the_nearest_class_answers_and_an_absent_one_never() -> None:
    """Class 1 would be the nearest, but nobody holds it."""
    prototypes = Prototypes(np.array([[0, 0], [0, 0], [9, 9]], np.float32), np.array([1, 0, 1], np.uint8))
    logits = prototype_logits(np.array([[0.1, 0], [8, 8]], np.float32), prototypes)
    assert logits.argmax(1).tolist() == [0, 2]
    assert np.isneginf(logits[:, 1]).all()
    assert logits.dtype == np.float32


@given(st.integers(0, 2**32 - 1))
def test_distances_are_those_of_the_definition(seed: int) -> None:
    """As subtracting, squaring and adding would give them."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(5, 3)).astype(np.float32), rng.normal(size=(2, 3)).astype(np.float32)
    plain = np.sqrt(((a[:, None] - b[None]) ** 2).sum(2))
    np.testing.assert_allclose(distances(a, b), plain, atol=1e-5)
