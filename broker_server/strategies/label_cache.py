"""Which samples need not be asked again, for their teacher is still fresh (SCARLET; Azuma et al. 2025). Pure.

Owns the teacher's rows and the rounds in which they were fused; owns no rule: it goes with any of them. A round asks
the devices for what the cache lacks, fuses that, and teaches from the cache::

    rows = cache.to_ask(round, chosen)
    strategy = DsFl(shared.take(rows), settings)      # devices answer on these rows
    cache = cache.with_fused(rows, strategy.teacher(), round)
    cache.teacher                                     # of all samples
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from broker_server.strategies.base import F4, Opinion

I8 = npt.NDArray[np.int64]
NEVER = -1


@dataclass(frozen=True, eq=False)
class LabelCache:
    """The teacher so far.

    Attributes:
        teacher: of all N samples; the shared model's opinion where nothing was fused yet.
        fused: (N,) int64, round in which each row was fused, -1 for never.
        lifetime: D, rounds for which a row stays; 1 asks for everything in every round.
    """

    teacher: Opinion
    fused: I8
    lifetime: int

    @classmethod
    def empty(cls, shared: Opinion, lifetime: int) -> LabelCache:
        """Start with what the shared model says; D ≥ 1 (the paper takes 50 rounds of many hundred)."""
        return cls(shared, np.full(len(shared.value), NEVER, np.int64), lifetime)

    def to_ask(self, round_: int, chosen: I8 | None = None) -> I8:
        """Rows to ask the devices for: those chosen for this round (all by default) that are not fresh, ascending.

        Args:
            round_: number of this round, ≥ 0, rising.
            chosen: rows that this round teaches from; drawn anew each round, they do not all expire at once.
        """
        rows = np.arange(len(self.fused)) if chosen is None else np.unique(chosen)
        stale = (self.fused[rows] == NEVER) | (round_ - self.fused[rows] >= self.lifetime)
        return np.asarray(rows[stale], np.int64)

    def with_fused(self, rows: I8, teacher: Opinion, round_: int) -> LabelCache:
        """Take in what a round fused.

        Args:
            rows: (M,) that were asked.
            teacher: of these M rows, in their order.
            round_: number of the round.
        """
        fused = self.fused.copy()
        fused[rows] = round_
        merged = Opinion(_put(self.teacher.value, rows, teacher.value))
        if self.teacher.spread is not None and teacher.spread is not None:
            merged = replace(merged, spread=_put(self.teacher.spread, rows, teacher.spread))
        return replace(self, teacher=merged, fused=fused)


def _put(table: F4, rows: I8, values: F4) -> F4:
    copy: F4 = table.copy()
    copy[rows] = values
    return copy
