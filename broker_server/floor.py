"""The best accepted score of each tier and cohort, so that none is lost by instalments; pure, owns no rule.

A floor goes from round to round. It begins anew when scores no longer compare (another validation pack, other rules),
and when the fleet's release is not the one that raised it: an operator who releases something else means it.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from math import isnan

import msgspec

from broker_server.distil_job import DistilResult
from edge_protocol.task import Tier

WHOLE = ""
"""Name of the tier as a whole among its cohorts."""


class Best(msgspec.Struct, frozen=True, array_like=True):
    """A best score.

    Attributes:
        score: in the unit of its cohort, see `Paired`.
        spread: its standard error; 0 for a tier as a whole, where none is measured.
    """

    score: float
    spread: float = 0.0


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """What a candidate is compared with beside the current release.

    Attributes:
        basis: of `basis_of`; scores of another one do not compare.
        release: counter of the release that raised it last, or that it began at.
        best: tier → cohort → best accepted score.
    """

    basis: str
    release: int
    best: dict[Tier, dict[str, Best]] = {}

    def raised(self, result: DistilResult) -> Floor:
        """The floor after a candidate was accepted: of every score the best so far."""
        best = {tier: dict(cohorts) for tier, cohorts in self.best.items()}
        sign = 1.0 if result.higher_is_better else -1.0
        for tier, name, told in _scores(result):
            before = best.setdefault(tier, {}).get(name)
            if not isnan(told.score) and (before is None or sign * (told.score - before.score) > 0):
                best[tier][name] = told
        return msgspec.structs.replace(self, best=best)


def basis_of(validation: str, rules: msgspec.Struct) -> str:
    """What scores must have in common to be compared, as a hash.

    Args:
        validation: SHA-256 of the validation pack.
        rules: that candidates are judged by.
    """
    return sha256(validation.encode() + msgspec.json.encode(rules, order="sorted")).hexdigest()


def fitting(floor: Floor | None, basis: str, release: int) -> Floor:
    """The floor of the round before if it still holds, else an empty one.

    Args:
        floor: of the round before.
        basis: of `basis_of`, of this round.
        release: counter of the fleet's release.
    """
    return floor if floor and (floor.basis, floor.release) == (basis, release) else Floor(basis=basis, release=release)


def _scores(result: DistilResult) -> Iterator[tuple[Tier, str, Best]]:
    """Every score of the current release and of the candidate."""
    for tier, sides in result.metrics.items():
        yield from ((tier, WHOLE, Best(scores[result.headline])) for scores in sides.values())
    for tier, cohorts in result.cohorts.items():
        for name, pair in cohorts.items():
            yield from ((tier, name, Best(score, pair.spread)) for score in (pair.current, pair.candidate))
