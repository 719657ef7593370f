"""Decides whether a candidate becomes a release: pure, from scores on server validation that the worker measured.

Owns the rule and nothing else: it sees no model, no report and no training loss.

A cohort refuses a candidate when it is large enough and the lower confidence bound of what it loses, over samples that
both students answered, is above its tolerance. The bound is one-sided and normal, its error shared out over all cohorts
of all tiers (Bonferroni), so that many cohorts do not refuse by chance what each of them would let pass.

Beside the current release a candidate is compared with the floor, the best that was accepted of each tier and cohort:
else every round could take the tolerance again. The student of that best is not there to answer sample by sample, so
the two scores are compared as if they were independent: a wider bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from statistics import NormalDist
from typing import Annotated

import msgspec
from msgspec import Meta

from broker_server.distil_job import DistilResult
from broker_server.floor import WHOLE, Best, Floor
from edge_protocol.task import Tier

Share = Annotated[float, Meta(ge=0)]
Bests = Mapping[Tier, Mapping[str, Best]]
TIER_FLOOR = 2.0
"""A tier may be so many times its tolerance below its best: no standard error is measured of a tier as a whole."""


class JudgeRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a candidate may lose; the ``judge`` section of a task in the server's configuration.

    Attributes:
        tolerance: share of its current score that one tier may lose while the mean over tiers gets better, and half of
            what it may be below the best that was accepted of it.
        cohort_tolerance: share of its current score, and of its best accepted one, that a cohort may lose in any tier.
        cohorts: cohort → a tolerance of its own, such as ``class/bus: 0.2``.
        least: samples below which a cohort has no say.
        confidence: with which a cohort must have lost more than its tolerance, over all cohorts together.
    """

    tolerance: Share = 0.02
    cohort_tolerance: Share = 0.05
    cohorts: dict[str, Share] = {}
    least: Annotated[int, Meta(ge=2)] = 30
    confidence: Annotated[float, Meta(gt=0.5, lt=1)] = 0.95


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a candidate becomes a release, and why (for the operator)."""

    accepted: bool
    reason: str


def judge(result: DistilResult, rules: JudgeRules | None = None, floor: Floor | None = None) -> Verdict:
    """Accept a candidate that is better on the mean over tiers, with no tier and no cohort much worse.

    A first release has nothing to beat: it is accepted when every tier has a score.

    Args:
        result: of the distillation.
        rules: what it may lose; the defaults when None.
        floor: best accepted scores on the same validation samples; None for no more than the current ones.
    """
    rules = rules or JudgeRules()
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
    best = floor.best if floor else {}
    if worse := _worse_tier(result, pairs, rules.tolerance, best) or _worse_cohort(result, rules, best):
        return Verdict(accepted=False, reason=worse)
    before, after = (sum(pair[at] for pair in pairs.values()) / len(pairs) for at in (0, 1))
    better = _gain(result, before, after) > 0
    return Verdict(accepted=better, reason=f"mean over tiers: {_change(result, before, after)}")


def _worse_tier(result: DistilResult, pairs: Mapping[Tier, Sequence[float]], tolerance: float, best: Bests) -> str:
    """The first tier that lost more than its tolerance, with what it lost; "" when none did."""
    for tier, (current, candidate) in pairs.items():
        if _gain(result, current, candidate) < -tolerance * abs(current):
            return f"{tier}: {_change(result, current, candidate)}"
        top = best.get(tier, {}).get(WHOLE)
        if top and _gain(result, top.score, candidate) < -TIER_FLOOR * tolerance * abs(top.score):
            return f"{tier}: {_change(result, top.score, candidate)}, from the best that was released"
    return ""


def _worse_cohort(result: DistilResult, rules: JudgeRules, best: Bests) -> str:
    """The cohort that lost most beyond its tolerance, with what it lost; "" when none did."""
    heard = [
        (tier, name, pair)
        for tier, cohorts in result.cohorts.items()
        for name, pair in cohorts.items()
        if pair.samples >= rules.least
    ]
    margin = NormalDist().inv_cdf(1 - (1 - rules.confidence) / max(len(heard), 1))
    worst, reason = 0.0, ""
    for tier, name, pair in heard:
        tolerance = rules.cohorts.get(name, rules.cohort_tolerance)
        losses = [(pair.current, pair.loss, pair.doubt, "")]
        if top := best.get(tier, {}).get(name):
            loss, doubt = -_gain(result, top.score, pair.candidate), hypot(top.spread, pair.spread)
            losses.append((top.score, loss, doubt, ", from the best that was released"))
        for before, loss, doubt, since in losses:
            excess = loss - margin * doubt - tolerance * abs(before)
            if excess > worst:
                told = f"{before:.4g} → {pair.candidate:.4g} on {pair.samples} samples{since}"
                worst, reason = excess, f"{tier}: cohort {name} {told}"
    return reason


def _gain(result: DistilResult, before: float, after: float) -> float:
    return after - before if result.higher_is_better else before - after


def _change(result: DistilResult, before: float, after: float) -> str:
    return f"{result.headline} {before:.4g} → {after:.4g}"
