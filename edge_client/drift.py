"""Has what the device sees changed? Told by the shared head's doubt, by hour and condition; pure, of bounded memory.

The shared head is asked because no round refits it: what was usual for it stays comparable for as long as a release.
A night is darker than a noon and rain is not drift, so each hour and each condition is held against itself. The first
`reference` observations of a cell are its commissioning: their mean and spread. After that a Page-Hinkley test (Page
1954; Gama et al. 2014) adds up by how many spreads later ones are worse, and speaks when the sum has risen by
`threshold` above its lowest point. Only worse counts: what grows surer needs no other head.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

MAX_CONDITIONS = 8
"""Conditions told apart; further ones share a name."""
OTHER = "other"
MAX_Z = 4.0
"""No single observation counts for more spreads than this."""
DAY_HOURS = 24


class Observation(NamedTuple):
    """How unsure, or how wrong, the shared head was for a while.

    Attributes:
        hour: of the day (UTC), 0 to 23.
        condition: what the source says of the scene, or the source's name.
        doubt: mean of 1 - confidence, or of a forecast's error in spreads of its sensor; larger is worse.
    """

    hour: int
    condition: str
    doubt: float


class DriftConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How drift is told from chance.

    Attributes:
        reference: observations (a minute's mean each) that commission a cell: 180 are three days of its hour.
        slack: spreads by which an observation may be worse without counting.
        threshold: sum of spreads at which the cell speaks.
    """

    reference: Annotated[int, Meta(ge=8, le=100_000)] = 180
    slack: Annotated[float, Meta(ge=0)] = 0.5
    threshold: Annotated[float, Meta(gt=0)] = 25.0


class Cell(msgspec.Struct):
    """One hour under one condition: Welford's count, mean and squares of its reference, then the test's sum and low."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    total: float = 0.0
    lowest: float = 0.0


class Alarm(msgspec.Struct, frozen=True):
    """A cell that has changed: its usual doubt, and the doubt that tipped the sum."""

    hour: int
    condition: str
    usual: float
    doubt: float


class DriftDetector:
    """Watches the observations of one release's shared head.

    Args:
        config: how drift is told from chance.
        cells: of an earlier run, by condition and hour.
    """

    def __init__(self, config: DriftConfig, cells: dict[str, dict[int, Cell]] | None = None) -> None:
        self._config = config
        self.cells = cells or {}

    def restart(self) -> None:
        """Another release answers: what was usual for the last one says nothing about it."""
        self.cells.clear()

    def see(self, seen: Observation) -> Alarm | None:
        """Take one observation; return what has changed. A cell that has spoken is commissioned anew."""
        known = seen.condition in self.cells or len(self.cells) < MAX_CONDITIONS
        hours = self.cells.setdefault(seen.condition if known else OTHER, {})
        cell = hours.setdefault(seen.hour % DAY_HOURS, Cell())
        if cell.count < self._config.reference:
            cell.count += 1
            step = seen.doubt - cell.mean
            cell.mean += step / cell.count
            cell.squares += step * (seen.doubt - cell.mean)
            return None
        spread = max((cell.squares / (cell.count - 1)) ** 0.5, 1e-3)
        worse = max(-MAX_Z, min((seen.doubt - cell.mean) / spread, MAX_Z))
        cell.total += worse - self._config.slack
        cell.lowest = min(cell.lowest, cell.total)
        if cell.total - cell.lowest < self._config.threshold:
            return None
        hours[seen.hour % DAY_HOURS] = Cell()
        return Alarm(seen.hour % DAY_HOURS, seen.condition, cell.mean, seen.doubt)
