"""The book of what reports cost: sizes by round, and points that are lost only where levels say something else."""

from __future__ import annotations

import numpy as np

from benchmarks.learning.fleet import SPEC
from benchmarks.learning.report_codec import LAST, Ledger
from broker_server.distil_job import DistilSettings
from broker_server.strategies import HiddenAnchors, Opinion
from broker_server.strategies.feddistill import FedDistill
from edge_protocol.ids import DeviceId
from edge_protocol.votes import class_odds, class_votes

CAM = DeviceId("camera-00")


def test_a_round_is_booked() -> None:
    """The same answer again takes less; levels lose nothing against what they stand for, but do against the truth."""
    rng, asked, classes = np.random.default_rng(0), 132, len(SPEC.labels)
    labels = np.arange(asked) % classes
    ledger = Ledger(labels[:120], asked)
    shared = Opinion(np.full((asked, classes), 1 / classes, np.float32))
    anchors = HiddenAnchors(np.arange(120, asked), labels[120:])
    votes = class_votes(np.exp(rng.normal(size=(asked, classes)) * 2).astype(np.float32), np.ones(classes, np.uint8))
    truth = np.eye(classes, dtype=np.float32)[labels] * 50
    for number, odds in enumerate((class_odds(votes), truth), start=1):
        strategy = FedDistill(shared, DistilSettings(), anchors)
        strategy.add(CAM, votes)
        ledger(number, strategy, {CAM: odds})
    assert ledger.points[0] == 0 < ledger.points[1]
    assert ledger.of("range coder", first=False) < ledger.of("range coder", first=True) / 2
    assert ledger.of(LAST, first=False) > ledger.of("range coder", first=False) > 0
    assert ledger.of("levels, 3 bytes", first=True) == 3 * asked
