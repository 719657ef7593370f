"""Which samples are asked again."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from broker_server.strategies.base import Opinion
from broker_server.strategies.label_cache import LabelCache

N = 6
SHARED = Opinion(np.full((N, 2), 0.5, np.float32))
SURE = Opinion(np.tile(np.array([[0.9, 0.1]], np.float32), (N, 1)))


def rows(*at: int) -> np.ndarray:
    """Some rows."""
    return np.array(at, np.int64)


def test_everything_is_asked_first_and_nothing_while_it_is_fresh() -> None:
    """Fused in round 4 with a life of 3 rounds: asked again in round 7, not in 5 and 6."""
    cache = LabelCache.empty(SHARED, 3)
    assert cache.to_ask(4).tolist() == list(range(N))
    cache = cache.with_fused(cache.to_ask(4), SURE, 4)
    assert [len(cache.to_ask(round_)) for round_ in (5, 6, 7)] == [0, 0, N]


def test_only_what_has_expired_among_the_chosen_is_asked() -> None:
    """Rows 0 and 1 fused in round 0, 2 in round 2: of the chosen 1, 2 and 5, round 3 asks 1 and 5."""
    cache = LabelCache.empty(SHARED, 3)
    cache = cache.with_fused(rows(0, 1), SURE.take(rows(0, 1)), 0).with_fused(rows(2), SURE.take(rows(2)), 2)
    assert cache.to_ask(3, rows(5, 2, 1)).tolist() == [1, 5]


def test_fresh_rows_are_kept_and_others_are_the_shared_model_s() -> None:
    """The teacher's rows change where they were fused and nowhere else; the cache before is as it was."""
    before = LabelCache.empty(SHARED, 3)
    after = before.with_fused(rows(4, 1), Opinion(np.array([[1, 0], [0, 1]], np.float32)), 0)
    np.testing.assert_array_equal(after.teacher.value[[4, 1, 0]], [[1, 0], [0, 1], [0.5, 0.5]])
    assert (before.teacher.value == 0.5).all()


def test_forecasts_keep_their_spread() -> None:
    """Mean and spread of a row belong together."""
    ones = np.ones((N, 1), np.float32)
    cache = LabelCache.empty(Opinion(0 * ones, ones), 2).with_fused(rows(3), Opinion(ones[:1], 5 * ones[:1]), 0)
    assert cache.teacher.spread is not None
    np.testing.assert_array_equal(cache.teacher.spread[:, 0], [1, 1, 1, 5, 1, 1])


@given(st.integers(1, 5), st.integers(1, 20))
def test_a_row_is_asked_once_in_a_lifetime(lifetime: int, rounds: int) -> None:
    """Over many rounds each row is asked every `lifetime` rounds: that is the saving."""
    cache, asked = LabelCache.empty(SHARED, lifetime), 0
    for round_ in range(rounds):
        due = cache.to_ask(round_)
        asked += len(due)
        cache = cache.with_fused(due, SURE.take(due), round_)
    assert asked == N * -(-rounds // lifetime)
