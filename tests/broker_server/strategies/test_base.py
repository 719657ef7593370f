"""Decoding and fusing votes."""

from __future__ import annotations

import numpy as np
import pytest

from broker_server.distil_job import DistilSettings
from broker_server.strategies import STRATEGIES, Opinion, make_strategy
from broker_server.strategies.base import Fusion, opinion_of
from edge_protocol.errors import ConfigError
from tests.broker_server.strategies.ballots import class_votes, forecast_votes


def test_a_vote_spreads_what_its_confidence_leaves() -> None:
    """Level 1 is 0.7 on class 1; the rest goes to the other class held, none to the third."""
    np.testing.assert_allclose(opinion_of(class_votes([1], 1, held=[1, 1, 0])).value, [[0.3, 0.7, 0]], atol=1e-6)


def test_a_forecast_is_taken_as_it_is() -> None:
    """Mean and spread come back as sent."""
    opinion = opinion_of(forecast_votes([0.5], 2.0))
    assert opinion.value.tolist() == [[0.5]]
    assert opinion.spread is not None
    assert opinion.spread.tolist() == [[2.0]]


def test_fusion_matches_the_moments_by_hand() -> None:
    """Means -1 and 1 of spread 1, weights 1 and 3: mean 0.5, variance 1 + 1 - 0.25."""
    fusion = Fusion()
    one = np.ones((1, 1), np.float32)
    fusion.add(Opinion(-one, one), 1.0)
    fusion.add(Opinion(one, one), 3.0)
    fused = fusion.result()
    assert fused.value.item() == pytest.approx(0.5)
    assert fused.spread is not None
    assert fused.spread.item() == pytest.approx(1.75**0.5)


def test_strategies_are_made_by_name() -> None:
    """Each name makes its strategy, and an unknown one lists what there is."""
    shared = Opinion(np.full((1, 3), 1 / 3, np.float32))
    for name, kind in STRATEGIES.items():
        assert type(make_strategy(DistilSettings(strategy=name), shared)) is kind
    with pytest.raises(ConfigError, match="fedmd, mean, self"):
        make_strategy(DistilSettings(strategy="fedavg"), shared)
