"""Which samples are listed as hard."""

from __future__ import annotations

import numpy as np
import pytest

from edge_client.hard_examples import LISTED, hardest
from edge_models.head_weights import HeadWeights
from edge_models.samples import Samples
from edge_models.tasks import load_task

VEHICLE, SPEED = load_task("vehicle"), load_task("speed")


def head(*outputs: tuple[int, int, float], count: int = 6) -> HeadWeights:
    """A head that gives (output, feature, weight)."""
    weight = np.zeros((count, 64), np.float32)
    for output, feature, value in outputs:
        weight[output, feature] = value
    return HeadWeights(weight, np.zeros(count, np.float32))


def pictures(*features: tuple[float, float]) -> tuple[list[str], Samples, np.ndarray]:
    """Samples with two features that matter; the first is labelled."""
    found = np.zeros((len(features), 64), np.float32)
    found[:, :2] = features
    targets = np.full(len(features), -1)
    targets[0] = 1
    raw = np.zeros((len(features), 32, 32, 3), np.uint8)
    return [f"s-{at}" for at in range(len(features))], Samples.of(raw, targets), found


def test_the_unsure_and_the_disputed_come_first() -> None:
    """One that both heads are sure of comes last, behind one that neither knows and one that they call differently."""
    own, shared = head((1, 0, 9.0), (2, 1, 9.0)), head((1, 0, 9.0), (3, 1, 9.0))
    found = hardest(*pictures((1, 0), (0, 0), (0, 1)), (own, shared), VEHICLE)
    by_name = {each.sample: each for each in found}
    assert (by_name["s-2"].own, by_name["s-2"].shared) == (VEHICLE.labels[2], VEHICLE.labels[3])
    assert by_name["s-2"].apart > 0.99
    assert by_name["s-1"].unsure == pytest.approx(1)
    assert (by_name["s-0"].labelled, by_name["s-1"].labelled) == (True, False)
    assert found[-1].sample == "s-0"
    assert found[-1].unsure + found[-1].apart < 0.02


def test_those_that_nobody_has_labelled_come_first() -> None:
    """One that has a label, however hard, comes behind one that an installer could still name."""
    found = hardest(*pictures((0, 0), (1, 0)), (head((1, 0, 9.0)), head((1, 0, 9.0))), VEHICLE)
    assert [each.sample for each in found] == ["s-1", "s-0"]
    assert found[1].unsure > found[0].unsure


def test_the_list_is_bounded() -> None:
    """Of any number of samples, so many; none of none."""
    many = pictures(*[(0.01 * at, 0) for at in range(200)])
    assert len(hardest(*many, (head(), head()), VEHICLE)) == LISTED
    assert hardest([], Samples.of(many[1].raw[:0]), many[2][:0], (head(), head()), VEHICLE) == ()


def test_forecasts_are_ranked_by_spread_and_distance() -> None:
    """Of two windows the one with the wider spread and the other mean; no class is told."""
    own, shared = head((0, 0, 2.0), (3, 1, 1.0)), head()
    features = np.zeros((2, 64), np.float32)
    features[1, :2] = 1.0
    targets = np.array([[np.nan] * 3, [0.1] * 3], np.float32)
    scale = np.ones((2, 2), np.float32)
    samples = Samples.of(np.zeros((2, *SPEED.input.raw_shape), np.float32), targets, scale=scale)
    first, second = hardest(["calm", "wild"], samples, features, (own, shared), SPEED)
    assert (first.sample, first.own, first.labelled, second.labelled) == ("wild", "", True, False)
    assert first.unsure == pytest.approx((np.e + 2) / 3, rel=1e-5)
    assert first.apart == pytest.approx(2 / 3, rel=1e-5)
