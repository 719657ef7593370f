"""Leaving an ingredient out leaves out that one: density, hidden anchors, or that an echo is no news."""

from __future__ import annotations

import numpy as np

from benchmarks.learning.ablations import NoDensity, NoNovelty, NoTrust
from broker_server.distil_job import DistilSettings
from broker_server.strategies.base import HiddenAnchors, Opinion
from broker_server.strategies.feddistill import FedDistill
from edge_protocol.ids import DeviceId
from tests.broker_server.strategies.ballots import class_votes

SETTINGS = DistilSettings(shared_share=0, device_cap=1)
SHARED = Opinion(np.full((4, 2), 0.5, np.float32))
ANCHORS = HiddenAnchors(np.array([0, 1, 2, 3]), np.array([0, 0, 1, 1]))
SURE, DOUBTFUL = (6, 6, 6, 6), (1, 6, 2, 6)


def teacher(kind: type[FedDistill], density: tuple[int, ...]) -> Opinion:
    """What one device of both classes teaches."""
    rule = kind(SHARED, SETTINGS, ANCHORS)
    rule.add(DeviceId("d0"), class_votes([0, 0, 1, 1], density=list(density), held=[1, 1]))
    return rule.teacher()


def test_without_density_only_classes_speak() -> None:
    """The whole rule hears a device's doubt about single samples; the rule without density does not."""
    whole, without = ([teacher(kind, said).value for said in (SURE, DOUBTFUL)] for kind in (FedDistill, NoDensity))
    assert not np.allclose(*whole, atol=0.01)
    np.testing.assert_allclose(*without, atol=1e-6)


def test_without_trust_a_liar_weighs_as_much_as_anybody() -> None:
    """A device that is wrong on all hidden anchors keeps its weight only where nobody looks at them."""
    honest, liar = (class_votes(said, density=[6] * 4, held=[1, 1]) for said in ([0, 0, 1, 1], [1, 1, 0, 0]))
    weights = {}
    for kind in (FedDistill, NoTrust):
        rule = kind(SHARED, SETTINGS, ANCHORS)
        rule.add(DeviceId("honest"), honest)
        rule.add(DeviceId("liar"), liar)
        weights[kind] = rule.class_weights()
    np.testing.assert_allclose(weights[NoTrust][0], weights[NoTrust][1])
    assert (weights[FedDistill][0] > 2 * weights[FedDistill][1]).all()


def test_without_novelty_an_echo_is_heard() -> None:
    """A device that repeats the shared model, errors and all, counts only where nobody looks for that."""
    truth = np.arange(60) % 2
    believed = np.where(np.arange(60) % 5 < 2, 1 - truth, truth)
    shared = Opinion(np.where(believed[:, None] == np.arange(2), 0.9, 0.1).astype(np.float32))
    shares = {}
    for kind in (FedDistill, NoNovelty):
        rule = kind(shared, SETTINGS, HiddenAnchors(np.arange(0, 60, 3), truth[::3]))
        rule.add(DeviceId("honest"), class_votes(truth.tolist(), density=[5] * 60, held=[1, 1]))
        rule.add(DeviceId("echo"), class_votes(believed.tolist(), density=[7] * 60, held=[1, 1]))
        shares[kind] = rule.trust()["echo"]
    assert shares[FedDistill] < 0.01 < shares[NoNovelty]
