"""What a device with privacy on says: the bound on one sample's weight, what is told, and what is lost."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_models.private_odds import Background, answer, class_totals, noisy_totals
from edge_protocol.errors import DataError

K, C = 16, 3


def features(rng: np.random.Generator, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Three clouds on three axes."""
    return (4 * np.eye(C, K)[labels] + rng.normal(0, 1, (len(labels), K))).astype(np.float32)


def scene() -> tuple[Background, npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """300 proxies, and the class that the shared head takes each for."""
    rng = np.random.default_rng(0)
    named = rng.integers(0, C, 300)
    asked = features(rng, named)
    return Background.of(asked, named, C), asked[None], named


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e6), st.integers(-1, C))
def test_one_sample_moves_the_totals_by_at_most_one(seed: int, size: float, label: int) -> None:
    """Whatever the sample is, however far out, whatever its label: that is what the noise is measured against."""
    background, _, _ = scene()
    rng = np.random.default_rng(seed)
    labels = np.append(rng.integers(0, C, 20), label)
    own = (rng.normal(0, 1, (21, K)) * size).astype(np.float32)
    moved = class_totals(background, own, labels) - class_totals(background, own[:-1], labels[:-1])
    assert np.linalg.norm(moved) <= 1 + 1e-9


def test_the_noise_in_each_total_has_the_standard_deviation_that_is_paid_for() -> None:
    """Over 500 draws, each total spreads by sigma around the true one."""
    background, asked, named = scene()
    rng = np.random.default_rng(3)
    true = class_totals(background, asked[0], named)
    drawn = np.stack([noisy_totals(background, [(asked[0], named)], 0.7, rng) - true for _ in range(500)])
    assert np.abs(drawn.mean(0)).max() < 0.15
    assert drawn.std(0).min() > 0.6
    assert drawn.std(0).max() < 0.8


def test_a_device_without_samples_holds_nothing() -> None:
    """Noise alone is no class, no example and no odds."""
    background, asked, _ = scene()
    none = np.zeros((0, K), np.float32), np.zeros(0, np.int64)
    totals = noisy_totals(background, [none], 2.0, np.random.default_rng(3))
    told = answer(background, totals, asked, sigma=2.0, k=3)
    assert (told.held.sum(), told.examples, np.abs(told.odds).max()) == (0, 0, 0)


def test_own_classes_are_told_and_the_others_are_not() -> None:
    """A device with two of three classes says so of the proxies, with noise as well as without."""
    background, asked, named = scene()
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 2], 150)
    own = features(rng, labels)
    for sigma in (0.0, 1.0):
        told = answer(background, noisy_totals(background, [(own, labels)], sigma, rng), asked, sigma=sigma, k=3)
        assert told.held.tolist() == [1, 0, 1]
        assert abs(told.examples - 300) < 30
        assert not told.odds[:, 1].any()
        spoken = named != 1
        assert (told.odds[spoken].argmax(1) == named[spoken]).mean() > 0.95
        assert np.median(told.odds[~spoken].sum(1)) < np.median(told.odds[spoken].sum(1))


def test_noise_comes_from_the_system_unless_it_is_asked_for() -> None:
    """Two reports of the same samples differ; nobody can take off noise whose seed he does not know."""
    background, asked, named = scene()
    first, second = (noisy_totals(background, [(asked[0], named)], 2.0) for _ in range(2))
    assert (first != second).any()


def test_what_is_not_finite_or_not_aligned_is_refused() -> None:
    """A sample of NaN counts for nothing, for an error would tell of it; proxies of NaN are an error."""
    background, asked, named = scene()
    bad = np.full((1, K), np.nan, np.float32)
    assert not class_totals(background, bad, np.zeros(1, np.int64)).any()
    with pytest.raises(DataError, match="labels"):
        class_totals(background, asked[0], named[:-1])
    with pytest.raises(DataError, match="proxies"):
        Background.of(bad, np.zeros(1, np.int64), C)


def test_a_class_that_the_shared_head_never_names_can_be_held() -> None:
    """Its background is all proxies; odds stay finite."""
    rng = np.random.default_rng(2)
    asked = features(rng, np.zeros(50, np.int64))
    background = Background.of(asked, np.zeros(50, np.int64), C)
    labels = np.full(80, 2)
    totals = noisy_totals(background, [(features(rng, labels), labels)], 0.5, rng)
    told = answer(background, totals, asked[None], sigma=0.5, k=3)
    assert told.held.tolist() == [0, 0, 1]
    assert np.isfinite(told.odds).all()
