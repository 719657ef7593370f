"""How well scores tell members from others: likelihood-ratio calibration, ROC figures, bootstrap. Numpy only.

Owns no model and no report. After Carlini et al. 2022, "Membership inference attacks from first principles".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F8 = npt.NDArray[np.float64]
B1 = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def halves(runs: int, samples: int, rng: np.random.Generator) -> B1:
    """(runs, samples): a random half in each run."""
    return np.stack([rng.permutation(samples) % 2 == 0 for _ in range(runs)])


def likelihood_ratios(scores: F8, member: B1) -> F8:
    """Calibrate scores per sample, as an attacker does who has trained shadow devices on the same pool.

    Each run is attacked with the others as its shadows: log of the normal density of the sample's score among runs that
    held it, less that among runs that did not (online LiRA). As there are few runs, there is one variance for all, and
    how far a sample's two means lie from its own mean begins with one run's worth of how far they lie over all samples.

    Args:
        scores: (R, N), R ≥ 2 runs.
        member: (R, N), whether a run trained on a sample; drawn anew in each run. Were every sample in exactly half of
            the runs, how many of the others held it would betray the one that is attacked.
    """
    found = np.zeros_like(scores)
    for run in range(len(scores)):
        others = np.arange(len(scores)) != run
        left = scores - scores[others].mean(0)
        inside, outside = (_means(left[others], which) for which in (member[others], ~member[others]))
        variance = float(left[others].var()) + 1e-9
        found[run] = (np.square(left[run] - outside) - np.square(left[run] - inside)) / (2 * variance)
    return found


def _means(scores: F8, which: B1) -> F8:
    """Mean score of each sample over the runs that count, (N,)."""
    common = scores[which].mean()
    return np.asarray((np.where(which, scores, 0).sum(0) + common) / (which.sum(0) + 1))


def roc(scores: F8, member: B1) -> tuple[F8, F8]:
    """False and true positive rates over all thresholds, from (0, 0) to (1, 1); equal scores are one threshold."""
    order = np.argsort(-scores.ravel(), kind="stable")
    ranked, truth = scores.ravel()[order], member.ravel()[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    true, false = np.cumsum(truth)[last], np.cumsum(~truth)[last]
    return np.append(0, false / max(false[-1], 1)), np.append(0, true / max(true[-1], 1))


def area(scores: F8, member: B1) -> float:
    """Area under the ROC curve: 0.5 is guessing."""
    false, true = roc(scores, member)
    return float(np.sum(np.diff(false) * (true[1:] + true[:-1]) / 2))


def caught(scores: F8, member: B1, false_positives: float = 0.01) -> float:
    """True positive rate at a false positive rate; between two thresholds the attacker tosses a coin."""
    false, true = roc(scores, member)
    return float(np.interp(false_positives, false, np.maximum.accumulate(true)))


def interval(
    figure: Callable[[F8, B1], float], scores: F8, member: B1, rng: np.random.Generator, repeats: int
) -> Interval:
    """Bootstrap a figure over samples: all runs of a sample go together, for they are not independent."""
    drawn = [
        figure(scores[:, rows], member[:, rows])
        for rows in (rng.integers(0, scores.shape[1], scores.shape[1]) for _ in range(repeats))
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(figure(scores, member), float(low), float(high))


def most_caught(epsilon: float, delta: float, false_positives: float = 0.01) -> float:
    """What no attack on an (ε, δ)-private release can exceed (Kairouz, Oh & Viswanath 2015, theorem 2.1)."""
    rising = np.exp(epsilon) * false_positives + delta
    falling = 1 - np.exp(-epsilon) * (1 - delta - false_positives)
    return float(min(rising, falling, 1.0))
