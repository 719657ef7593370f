"""Where a run has warmed up, and whether it stays even; owns no clock.

Caches, clock governors and lazy allocations make the first queries slow. The run is cut into groups; what comes before
the first group whose median is that of the second half is left out. Nothing is left out because it is slow: later
stalls stay, and never is more than half of a run left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import msgspec

GROUPS = 40
"""Parts a run is cut into; a run of fewer queries is not judged."""
TOLERANCE = 0.05
"""Largest difference between medians that counts as none, relative."""


class Steady(msgspec.Struct, frozen=True):
    """What was found.

    Attributes:
        begins: queries left out at the beginning.
        drift: median of the last third of the rest over that of its first third, minus 1; None: too few queries.
        steady: whether the rest is even.
    """

    begins: int
    drift: float | None
    steady: bool


def find_steady(latencies: Sequence[int]) -> Steady:
    """Judge latencies in the order they were measured, any unit."""
    size = len(latencies) // GROUPS
    if not size:
        return Steady(0, None, steady=False)
    reference = median(latencies[len(latencies) // 2 :])
    starts = range(0, len(latencies) // 2, size)
    even = (at for at in starts if abs(median(latencies[at : at + size]) - reference) <= TOLERANCE * reference)
    begins = next(even, None)
    rest = latencies[begins or 0 :]
    third = len(rest) // 3
    early, late = median(rest[:third]), median(rest[-third:])
    drift = late / early - 1 if early else 0.0
    return Steady(begins or 0, drift, steady=begins is not None and abs(drift) <= TOLERANCE)
