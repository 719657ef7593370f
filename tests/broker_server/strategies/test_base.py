"""Decoding, fusing and refusing reports."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from broker_server.distil_job import DistilSettings
from broker_server.strategies import STRATEGIES, Opinion, make_strategy
from broker_server.strategies.base import Fusion, check_report, opinion_of
from edge_models.tasks import load_task
from edge_protocol.errors import ConfigError, RemoteProtocolError
from edge_protocol.messages import KnowledgeReport
from tests.broker_server.strategies.ballots import class_votes, forecast_votes

VEHICLE, SPEED = load_task("vehicle"), load_task("speed")
PROXY = "ab" * 32
GOOD = KnowledgeReport("vehicle", VEHICLE.label_space, 2, 1, PROXY, 100, class_votes([0, 5], held=[1] * 6))
FORECAST = KnowledgeReport("speed", SPEED.label_space, 2, 1, PROXY, 100, forecast_votes([0.1, 0.3], horizons=3))


def test_a_vote_spreads_what_its_confidence_leaves() -> None:
    """Level 1 is 0.7 on class 1; the rest goes to the other class held, none to the third."""
    np.testing.assert_allclose(opinion_of(class_votes([1], 1, held=[1, 1, 0])).value, [[0.3, 0.7, 0]], atol=1e-6)


def test_a_forecast_is_taken_as_it_is() -> None:
    """Mean and spread come back as sent."""
    opinion = opinion_of(forecast_votes([0.5], 2.0, 0.2))
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


def test_reports_that_answer_the_proxy_set_pass() -> None:
    """Good reports of both kinds raise nothing, also when any proxy set will do; one vote too few does."""
    for report, spec in ((GOOD, VEHICLE), (FORECAST, SPEED)):
        check_report(report, spec, PROXY, 2)
        check_report(report, spec, "", 2)
        with pytest.raises(RemoteProtocolError):
            check_report(report, spec, "", 3)


@pytest.mark.parametrize(
    ("changes", "samples", "reason"),
    [
        ({"task": "speed"}, 2, "wrong-task"),
        ({"label_space": "0" * 16}, 2, "wrong-task"),
        ({"proxy": "cd" * 32}, 2, "wrong-proxy"),
        ({}, 3, "wrong-shape"),
        ({"votes": class_votes([0, 1], held=[1] * 5)}, 2, "wrong-shape"),
        ({"votes": FORECAST.votes}, 2, "wrong-shape"),
    ],
)
def test_other_reports_are_refused_with_a_reason(changes: dict[str, object], samples: int, reason: str) -> None:
    """A report of another task, proxy set, length or kind names why it does not count."""
    with pytest.raises(RemoteProtocolError) as caught:
        check_report(msgspec.structs.replace(GOOD, **changes), VEHICLE, PROXY, samples)
    assert caught.value.reason == reason


def test_a_forecast_of_other_horizons_is_refused() -> None:
    """Two horizons cannot answer a task of three."""
    report = msgspec.structs.replace(FORECAST, votes=forecast_votes([0.1, 0.2], horizons=2))
    with pytest.raises(RemoteProtocolError) as caught:
        check_report(report, SPEED, PROXY, 2)
    assert caught.value.reason == "wrong-shape"


def test_nan_does_not_survive_decoding() -> None:
    """A report whose bytes hold NaN is refused before any strategy sees it."""
    data = msgspec.msgpack.encode(FORECAST)
    broken = data.replace(np.float16(0.3).tobytes(), np.float16(np.nan).tobytes())
    assert broken != data
    with pytest.raises(msgspec.ValidationError, match="NaN"):
        msgspec.msgpack.decode(broken, type=KnowledgeReport)


def test_strategies_are_made_by_name() -> None:
    """Each name makes its strategy, and an unknown one lists what there is."""
    shared = Opinion(np.full((1, 3), 1 / 3, np.float32))
    for name, kind in STRATEGIES.items():
        assert type(make_strategy(DistilSettings(strategy=name), shared)) is kind
    with pytest.raises(ConfigError, match="fedmd, mean, self"):
        make_strategy(DistilSettings(strategy="fedavg"), shared)
