"""Prototypes that the server trains apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from broker_server.strategies.fedproto import FedProto
from broker_server.strategies.fedtgp import MARGIN_LIMIT, FedTGP, _drawn, margin_of, weights_of
from broker_server.strategies.prototypes import PrototypeSharing
from edge_models.nearest_prototype import distances, prototype_logits
from edge_models.prototypes import Prototypes
from edge_protocol.ids import DeviceId

C, K, DEVICES = 4, 16, 12


def fleet(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Class means (DEVICES, C, K) whose devices differ more than their classes, and who holds what."""
    rng = np.random.default_rng(seed)
    centres, offsets = rng.normal(0, 0.3, (C, K)), rng.normal(0, 0.5, (DEVICES, 1, K))
    return (centres + offsets).astype(np.float32), (rng.random((DEVICES, C)) < 0.6).astype(np.uint8)


def tell(rule: PrototypeSharing, means: np.ndarray, held: np.ndarray) -> None:
    """Let every device send its means."""
    for at in range(len(means)):
        rule.add(DeviceId(f"d{at:02}"), Prototypes(means[at] * held[at][:, None], held[at]), np.ones(C, np.int64))


def least_gap(prototypes: Prototypes) -> float:
    """Distance of the two nearest prototypes."""
    gaps = distances(prototypes.means, prototypes.means)
    return float(gaps[~np.eye(C, dtype=bool)].min())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_prototypes_lie_at_least_as_far_apart_as_plain_means(seed: int) -> None:
    """The two nearest classes are further from each other than their weighted means are."""
    trained, plain = FedTGP(C, K), FedProto(C, K)
    for rule in (trained, plain):
        tell(rule, *fleet(seed))
    assert least_gap(trained.result()) > least_gap(plain.result())


def test_training_goes_on_from_round_to_round() -> None:
    """More class means are nearest to their own prototype after ten rounds than after one."""
    means, held = fleet()
    rule = FedTGP(C, K, epochs=20)
    tell(rule, means, held)
    right = []
    for _ in range(10):
        logits = prototype_logits(means.reshape(-1, K), rule.result()).argmax(1).reshape(DEVICES, C)
        right.append((logits == np.arange(C))[held == 1].mean())
    assert right[-1] > right[0]
    assert right[-1] > 0.8


def test_the_same_seed_gives_the_same_prototypes() -> None:
    """Nothing random but what the seed says."""
    rules = [FedTGP(C, K, epochs=3, seed=seed) for seed in (1, 1, 2)]
    for rule in rules:
        tell(rule, *fleet())
    results = [rule.result().means for rule in rules]
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


def test_class_means_weigh_by_their_counts_within_their_class() -> None:
    """30 and 10 samples of one class: 1.5 and 0.5; all alike where counts are, whatever other classes have."""
    assert weights_of(np.array([0, 1, 0]), np.array([30, 7, 10])).tolist() == [1.5, 1, 0.5]
    assert weights_of(np.array([0, 0, 2]), np.array([5, 5, 999])).tolist() == [1, 1, 1]


def test_an_epoch_takes_each_class_mean_as_often_as_it_weighs() -> None:
    """Once each where all weigh alike; 2.5 of 5 is two or three times, and 0.5 half of the time."""
    order = torch.Generator().manual_seed(0)
    assert all(sorted(_drawn(torch.ones(7), order).tolist()) == list(range(7)) for _ in range(50))
    uneven = torch.tensor([2.5, 0.5, 1, 1, 0])
    taken = torch.stack([torch.bincount(_drawn(uneven, order), minlength=5) for _ in range(400)])
    assert set(taken[:, 0].tolist()) == {2, 3}
    np.testing.assert_allclose(taken.float().mean(0), uneven, atol=0.15)


def test_a_class_mean_that_counts_nearly_alone_is_what_is_learnt() -> None:
    """One device tells the truth and has all the weight, 299 lie and have none: its classes are right, and finite."""
    centres = np.random.default_rng(0).normal(0, 0.3, (C, K)).astype(np.float32)
    rule, everything = FedTGP(C, K, epochs=30), np.ones(C, np.uint8)
    for at in range(300):
        means = np.roll(centres, 1, axis=0) if at else centres
        rule.add(DeviceId(f"d{at:03}"), Prototypes(means, everything), np.full(C, 1 if at else 10**6, np.int64))
    assert prototype_logits(centres, rule.result()).argmax(1).tolist() == list(range(C))


def test_the_margin_by_hand() -> None:
    """Centres at 0, 1 and 4: gaps to the nearest are 1, 1 and 3, so the margin is 3, and never above its limit."""
    points, labels = np.array([[-0.5], [0.5], [1], [4]], np.float32), np.array([0, 0, 1, 2])
    alike = np.ones(4)
    assert margin_of(points, labels, alike) == pytest.approx(3)
    assert margin_of(1000 * points, labels, alike) == MARGIN_LIMIT
    assert margin_of(points[:2], labels[:2], alike[:2]) == 0
    assert margin_of(points, labels, np.array([1.5, 0.5, 1, 1])) == pytest.approx(3), "a centre moves with its weights"
    assert margin_of(points[:3], labels[:3], np.array([1.5, 0.5, 1])) == pytest.approx(1.25)
