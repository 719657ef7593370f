"""Levels of votes: what rounding keeps, what stays as it was, and what comes back from levels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_protocol.arrays import unpack
from edge_protocol.errors import LocalProtocolError
from edge_protocol.votes import (
    MEAN_STEP,
    SPREAD_STEP,
    STAY,
    class_odds,
    class_votes,
    forecast_values,
    forecast_votes,
    levels_of_votes,
    votes_of_levels,
)

HELD = np.ones(2, np.uint8)
FINITE = st.floats(-60, 60, width=32)


def density(total: float, before: float | None = None) -> int:
    """The density level of a vote with these odds, said after one with other odds."""
    first = None if before is None else class_votes(np.array([[before, 0]], np.float32), HELD)
    return int(unpack(class_votes(np.array([[total, 0]], np.float32), HELD, first).density)[0])


def test_a_level_stays_until_the_odds_are_beyond_its_edge() -> None:
    """Odds just beyond an edge keep the level that was told last; odds well beyond it do not."""
    edge, near, far = 1.0, float(np.exp(STAY * 0.8)), float(np.exp(STAY * 1.2))
    assert (density(edge * near), density(edge / near)) == (3, 2)
    assert (density(edge * near, before=0.9), density(edge / near, before=1.1)) == (2, 3)
    assert (density(edge * far, before=0.9), density(edge / far, before=1.1)) == (3, 2)


def test_a_class_stays_until_another_is_well_ahead() -> None:
    """Of two classes that are about as likely, the one told last is told again; a clear winner takes its place."""
    first = class_votes(np.array([[1.1, 1.0]], np.float32), HELD)
    told = [class_votes(np.array([[1.0, ahead]], np.float32), HELD, first) for ahead in (1.1, 2.0)]
    assert [unpack(votes.classes).tolist() for votes in told] == [[0], [1]]


@given(hnp.arrays(np.float32, (12, 3), elements=st.floats(0, 100, width=32)), st.integers(0, 2**32 - 1))
def test_votes_after_others_are_near_votes_without(odds: np.ndarray, seed: int) -> None:
    """Whatever was said before, each total is told within one step of what it would be told as alone."""
    others = np.random.default_rng(seed).random((12, 3)).astype(np.float32) * 10
    held = np.ones(3, np.uint8)
    alone, after = class_votes(odds, held), class_votes(odds, held, class_votes(others, held))
    gap = unpack(alone.density).astype(int) - unpack(after.density).astype(int)
    assert np.abs(gap).max() <= 1
    assert np.isfinite(class_odds(after)).all()


@given(
    hnp.arrays(np.float32, (5, 3), elements=FINITE), hnp.arrays(np.float32, (5, 3), elements=st.floats(-4, 4, width=32))
)
def test_a_forecast_is_told_within_half_a_step(mean: np.ndarray, log_spread: np.ndarray) -> None:
    """Mean and spread come back within half of their steps, and levels give the same votes again."""
    votes = forecast_votes(mean, np.exp(log_spread))
    told_mean, told_spread = forecast_values(votes)
    assert np.abs(told_mean - mean).max() <= MEAN_STEP / 2 + 1e-6
    assert np.abs(np.log(told_spread) - log_spread).max() <= SPREAD_STEP / 2 + 1e-3
    assert votes_of_levels(*levels_of_votes(votes)) == votes


def test_forecasts_beyond_the_levels_are_told_as_the_last() -> None:
    """A mean of a thousand spreads and a spread of next to nothing stay finite; NaN is refused."""
    votes = forecast_votes(np.array([[1e3, -1e3]], "f4"), np.array([[1e-9, 1e9]], "f4"))
    mean, spread = forecast_values(votes)
    assert mean.tolist() == [[2047 / 32, -2047 / 32]]
    assert np.log(spread) == pytest.approx(np.array([[-5, 5]]), abs=1e-3)
    with pytest.raises(LocalProtocolError) as error:
        forecast_votes(np.array([[np.nan]], "f4"), np.ones((1, 1), "f4"))
    assert error.value.reason == "not-finite"
