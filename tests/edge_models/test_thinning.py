"""Which samples are left when there are too many."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_models.thinning import evenly, levelled, spaced


@given(st.lists(st.integers(-1, 5), max_size=200), st.integers(1, 60))
def test_a_choice_is_full_fair_and_in_order(classes: list[int], most: int) -> None:
    """An eighth is for unlabelled ones, the rest for labelled ones; no class gives way to one that has more."""
    named = np.array(classes, np.int64)
    chosen = evenly(named, most)
    assert len(chosen) == min(len(named), most)
    assert (np.diff(chosen) > 0).all()
    taken = np.bincount(named[chosen] + 1, minlength=7)
    there = np.bincount(named + 1, minlength=7)
    assert taken[0] >= min(there[0], most // 8)
    assert taken[1:].sum() == min(there[1:].sum(), most - min(there[0], most // 8))
    short = np.flatnonzero(taken[1:] < there[1:])
    assert not len(short) or taken[1:].max() - taken[1:][short].min() <= 1


def test_places_are_spread_evenly_and_fuller_classes_give_way() -> None:
    """The first and the last are among them."""
    assert [spaced(*counts).tolist() for counts in ((0, 7), (3, 7), (7, 3))] == [[], [0, 1, 2], [0, 3, 6]]
    assert levelled(np.array([3, 500, 90]), 100).tolist() == [3, 49, 48]
    assert levelled(np.array([3, 5]), 100).tolist() == [3, 5]
