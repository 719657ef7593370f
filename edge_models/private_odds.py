"""What a device says of the proxies when it may say little of any one of its samples. Numpy only, no torch.

Owns the only statistic of the device's samples that leaves: for each class a noisy sum of features and a noisy count.
Classes held, examples and odds are worked out of those and of what the server knows already (the release, the proxies),
so however many proxies are asked, they cost nothing more (post-processing, Dwork & Roth 2014, proposition 2.1).
The odds are those of normal distributions with a common covariance (linear discriminant analysis, Fisher 1936).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_protocol.errors import DataError

F4 = npt.NDArray[np.float32]
F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]

DIMENSIONS = 10
"""Directions of the proxies' features that are looked at: each one more takes its share of noise."""
COUNT_WEIGHT = 0.5
"""What the count of a class weighs beside its features in one sample's contribution."""
SURE = 3.0
"""Standard deviations of noise that a noisy count has to lie above the least examples."""
SHRINK = 0.1
"""Isotropic part of the common covariance."""
PRIOR_VARIANCE = 1.0
"""How far a device's class lies from the shared model's idea of it, in squared units of the common covariance."""
MAX_LOG_ODDS = 8.0


@dataclass(frozen=True, eq=False, slots=True)
class Background:
    """What the proxies look like to the released model; everybody who has the release can work it out.

    Attributes:
        origin: (K,) mean of the proxies' features.
        whiten: (K, D) features minus origin, times this, have about unit covariance within a class.
        means: (C, D) of the proxies that the shared head takes for each class; of all for a class it never names.
        shares: (C,) share of those, sum 1.
        radius: median length of a proxy there; the device's own samples are shortened to it.
    """

    origin: F8
    whiten: F8
    means: F8
    shares: F8
    radius: float

    @classmethod
    def of(cls, asked: F4, named: I8, classes: int) -> Background:
        """Describe the proxies.

        Args:
            asked: (N, K) float32 features, N ≥ 1.
            named: (N,) int64 class that the shared head takes each for.
            classes: C.

        Raises:
            DataError: features hold NaN or infinity, or there are none.
        """
        if not len(asked) or not np.isfinite(asked).all():
            raise DataError(f"features of {len(asked)} proxies are none, or hold NaN or infinity")
        origin = asked.mean(0, dtype=np.float64)
        centred = asked - origin
        means = np.stack([centred[named == c].mean(0) if (named == c).any() else 0 * origin for c in range(classes)])
        within = centred - means[named]
        width = asked.shape[1]
        covariance = within.T @ within / len(asked)
        isotropic = max(np.trace(covariance) / width, 1e-6) * np.eye(width)
        values, vectors = np.linalg.eigh((1 - SHRINK) * covariance + SHRINK * isotropic)
        whiten = vectors / np.sqrt(values)
        _, directions = np.linalg.eigh(np.atleast_2d(np.cov((centred @ whiten).T, bias=True)))
        whiten = whiten @ directions[:, ::-1][:, :DIMENSIONS]
        shares = np.bincount(named, minlength=classes) / len(named)
        radius = max(float(np.median(np.linalg.norm(centred @ whiten, axis=1))), 1e-6)
        return cls(origin, whiten, means @ whiten, shares, radius)

    def place(self, features: F4) -> F8:
        """Features (..., K) in the space of the common covariance: (..., D)."""
        return np.asarray((features - self.origin) @ self.whiten)


@dataclass(frozen=True, eq=False, slots=True)
class Answer:
    """What may be told.

    Attributes:
        odds: (N, C) float32, odds of "an own sample of class c" against "a proxy"; 0 for classes not held.
        held: (C,) int64, 1 for classes whose noisy count is surely above the least examples.
        examples: noisy number of samples of those classes, 0 or more.
    """

    odds: F4
    held: I8
    examples: int


def class_totals(background: Background, own: F4, labels: I8) -> F8:
    """Sum up what the samples contribute: (C, D + 1); adding or removing one sample moves it by at most 1 in L2.

    That is so if a sample's features are a function of that sample alone, which `edge_client.trunk` sees to.
    Each sample adds (z, w) / √(1 + w²) to the row of its class, z its features shortened to the radius and divided by
    it, w the weight of the count.

    Args:
        background: of the proxies.
        own: (M, K) float32 features.
        labels: (M,) int64. A sample with a label outside [0, C), or with NaN or infinity in it, contributes nothing:
            an error would tell of it.

    Raises:
        DataError: features are not aligned with labels.
    """
    if len(own) != len(labels):
        raise DataError(f"features {own.shape} are not those of {len(labels)} labels")
    classes = len(background.means)
    known = (labels >= 0) & (labels < classes) & np.isfinite(own).all(1)
    placed = background.place(own[known]) / background.radius
    placed /= np.maximum(np.linalg.norm(placed, axis=1, keepdims=True), 1)
    contributed = np.concatenate([placed, np.full((len(placed), 1), COUNT_WEIGHT)], 1) / _NORM
    totals = np.zeros((classes, contributed.shape[1]))
    np.add.at(totals, labels[known], contributed)
    return totals


_NORM = float(np.sqrt(1 + COUNT_WEIGHT**2))


def noisy_totals(
    background: Background, parts: Iterable[tuple[F4, I8]], sigma: float, rng: np.random.Generator | None = None
) -> F8:
    """Totals with (ε, δ)-differential privacy for every single sample: `privacy.noise_cost` says how much.

    Neighbours are two sets of samples of which one has one sample, its features with its label, more.

    Args:
        background: of the proxies.
        parts: (M, K) float32 features with (M,) int64 labels, some at a time; all of the device's labelled samples,
            for a choice among them is not covered.
        sigma: standard deviation of the noise in each total; 0 promises nothing.
        rng: of the noise; None for one that the system seeds. Whoever knows its seed can take the noise off.

    Raises:
        DataError: features are not aligned with labels.
    """
    totals = np.zeros((len(background.means), background.means.shape[1] + 1))
    for own, labels in parts:
        totals += class_totals(background, own, labels)
    return np.asarray(totals + (rng or np.random.default_rng()).normal(0, sigma, totals.shape))


def answer(background: Background, totals: F8, asked: F4, *, sigma: float, k: int) -> Answer:
    """Work out of noisy totals what to say of the proxies.

    Args:
        background: of the proxies.
        totals: (C, D + 1), noisy; the samples themselves are not needed any more.
        asked: (W, N, K) float32 features of W views of the proxies; odds are means over them in the logarithm.
        sigma: standard deviation of the noise in each total.
        k: least examples of a class.
    """
    counts = totals[:, -1] * _NORM / COUNT_WEIGHT
    held = (counts >= max(k, 1) + SURE * sigma * _NORM / COUNT_WEIGHT).astype(np.int64)
    known = np.maximum(counts, 1)[:, None]
    scale = background.radius * _NORM / known
    noise = (sigma * scale) ** 2
    told = totals[:, :-1] * scale
    means = background.means + (told - background.means) * PRIOR_VARIANCE / (PRIOR_VARIANCE + noise)
    placed = background.place(asked)
    ratio = (_log_normal(placed, means) - _log_mixture(placed, background)[..., None]).mean(0)
    odds = np.exp(ratio.clip(-MAX_LOG_ODDS, MAX_LOG_ODDS)) * held
    return Answer(odds.astype(np.float32), held, int(np.rint(counts[held > 0].sum())))


def _log_normal(placed: F8, means: F8) -> F8:
    """Logarithm of the density of each class at (..., D), up to what all have in common: (..., C)."""
    return np.asarray(placed @ means.T - 0.5 * np.square(means).sum(1))


def _log_mixture(placed: F8, background: Background) -> F8:
    """The same of the proxies, as a mixture of the classes: (...,)."""
    parts = _log_normal(placed, background.means) + np.log(np.maximum(background.shares, 1e-12))
    return np.asarray(np.logaddexp.reduce(parts, axis=-1))
