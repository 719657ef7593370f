"""Decides whether a candidate becomes a release: pure, from scores on server validation that the worker measured.

Owns the rule and nothing else: it sees no model, no report and no training loss.
"""

from __future__ import annotations

from dataclasses import dataclass

from broker_server.distil_job import DistilResult

TOLERANCE = 0.02
"""How much worse one tier may become while the family becomes better, as a share of its current score."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a candidate becomes a release, and why (for the operator)."""

    accepted: bool
    reason: str


def judge(result: DistilResult, tolerance: float = TOLERANCE) -> Verdict:
    """Accept a candidate that is better on the mean over tiers, with no tier worse by more than `tolerance`.

    A first release has nothing to beat: it is accepted when every tier has a score.

    Args:
        result: of the distillation.
        tolerance: share of a tier's current score that it may lose.
    """
    sign = 1.0 if result.higher_is_better else -1.0
    pairs = {
        tier: tuple(scores[which][result.headline] for which in ("current", "candidate") if which in scores)
        for tier, scores in result.metrics.items()
    }
    if not pairs or any("candidate" not in scores for scores in result.metrics.values()):
        return Verdict(accepted=False, reason="a tier has no candidate")
    if any(value != value for pair in pairs.values() for value in pair):  # noqa: PLR0124 — only NaN differs from itself
        return Verdict(accepted=False, reason=f"{result.headline} of a tier is not a number")
    if all(len(pair) == 1 for pair in pairs.values()):
        return Verdict(accepted=True, reason="first release")
    if any(len(pair) == 1 for pair in pairs.values()):
        return Verdict(accepted=False, reason="a tier has no current score to beat")
    for tier, (current, candidate) in pairs.items():
        if sign * (candidate - current) < -tolerance * abs(current):
            return Verdict(accepted=False, reason=f"{tier}: {_change(result, current, candidate)}")
    before, after = (sum(pair[at] for pair in pairs.values()) / len(pairs) for at in (0, 1))
    better = sign * (after - before) > 0
    return Verdict(accepted=better, reason=f"mean over tiers: {_change(result, before, after)}")


def _change(result: DistilResult, before: float, after: float) -> str:
    return f"{result.headline} {before:.4g} → {after:.4g}"
