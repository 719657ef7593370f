"""The sharpened mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_server.distil_job import DistilSettings
from broker_server.strategies.base import Opinion, SoftVotes, Strategy
from broker_server.strategies.dsfl import DsFl
from broker_server.strategies.fedmd import FedMd
from edge_protocol.ids import DeviceId

SHARED = Opinion(np.full((1, 6), 1 / 6, np.float32))


def fused(kind: type[Strategy], values: np.ndarray) -> np.ndarray:
    """Fuse the answers (devices, C) of one rule on one sample."""
    strategy = kind(SHARED, DistilSettings())
    for at, value in enumerate(values):
        strategy.add(DeviceId(f"d{at}"), SoftVotes(Opinion(value[None].astype(np.float32))))
    return strategy.teacher().value[0].astype(np.float64)


def entropy(p: np.ndarray) -> float:
    """In nats."""
    return float(-(p * np.log(np.maximum(p, 1e-12))).sum())


@given(st.integers(1, 8), st.floats(0.05, 3), st.integers(0, 2**32 - 1))
def test_the_favourite_stays(devices: int, skew: float, seed: int) -> None:
    """Whatever devices say, the sharpened mean is a distribution whose likeliest class is FedMD's."""
    values = np.random.default_rng(seed).dirichlet(np.full(6, skew), devices)
    sharp, plain = fused(DsFl, values), fused(FedMd, values)
    assert plain[sharp.argmax()] > plain.max() - 1e-6
    np.testing.assert_allclose(sharp.sum(), 1, atol=1e-5)


@pytest.mark.parametrize("devices", [2, 5, 12])
def test_entropy_falls(devices: int) -> None:
    """Of most samples on which devices are sure and disagree, and by far in the mean."""
    rng = np.random.default_rng(devices)
    draws = [rng.dirichlet(np.where(np.arange(6) == 2, 1.0, 0.1), devices) for _ in range(200)]
    sharp, plain = (np.array([entropy(fused(kind, values)) for values in draws]) for kind in (DsFl, FedMd))
    assert (sharp < plain + 1e-6).mean() > 0.8
    assert sharp.mean() < 0.6 * plain.mean()


def test_sharpening_by_hand() -> None:
    """A mean of 0.4 and 0.3 becomes odds of e to one: a tenth apart at a temperature of a tenth."""
    sharp = fused(DsFl, np.array([[0.5, 0.2, 0.3, 0, 0, 0], [0.3, 0.4, 0.3, 0, 0, 0]]))
    np.testing.assert_allclose(sharp[0] / sharp[1], np.e, rtol=1e-4)
    np.testing.assert_allclose(sharp[1], sharp[2], rtol=1e-4)


def test_the_shared_model_is_not_sharpened() -> None:
    """Without ballots it speaks as it is; forecasts are averaged as they are."""
    assert DsFl(SHARED, DistilSettings()).teacher() is SHARED
    one = np.ones((1, 1), np.float32)
    teachers = []
    for kind in (DsFl, FedMd):
        strategy = kind(Opinion(0 * one, one), DistilSettings())
        strategy.add(DeviceId("a"), SoftVotes(Opinion(3 * one, 2 * one)))
        teachers.append(strategy.teacher().value.item())
    assert teachers == [3, 3]
