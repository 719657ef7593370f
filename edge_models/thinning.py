"""Which samples are left when there are too many: of the fullest classes fewer, each spread evenly; pure, no torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_models.samples import UNLABELLED

I8 = npt.NDArray[np.int64]
UNLABELLED_PART = 8


def evenly(classes: I8, most: int) -> I8:
    """Choose at most so many samples: labelled ones first, of the fullest classes fewer, each evenly over time.

    An eighth is for unlabelled ones where there are so many: out of them come those that somebody is asked to label.

    Args:
        classes: (N,) int64 in order of time, -1 unlabelled.
        most: 1 or more.

    Returns:
        (≤ most,) int64 places, rising.
    """
    held, counts = np.unique(classes[classes != UNLABELLED], return_counts=True)
    shares = levelled(counts, most - min(len(classes) - int(counts.sum()), most // UNLABELLED_PART))
    groups = [(held_class, int(share)) for held_class, share in zip(held, shares, strict=True)]
    parts = []
    for group, share in [*groups, (UNLABELLED, most - int(shares.sum()))]:
        places = np.flatnonzero(classes == group)
        parts.append(places[spaced(len(places), share)])
    return np.sort(np.concatenate(parts))


def levelled(counts: I8, most: int) -> I8:
    """What is left (C,) of `counts` (C,) when the fullest give way until there are at most so many in all."""
    shares, left = np.zeros_like(counts), most
    for done, at in enumerate(np.argsort(counts, kind="stable")):
        shares[at] = min(int(counts[at]), left // (len(counts) - done))
        left -= int(shares[at])
    return shares


def spaced(count: int, most: int) -> I8:
    """At most so many places of `count`, spread evenly."""
    return np.linspace(0, max(count - 1, 0), min(count, most)).astype(np.int64)
