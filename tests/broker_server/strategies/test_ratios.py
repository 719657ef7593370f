"""Ratios of many reports at once are those of each report alone, whatever it says."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from broker_server.strategies.ratios import BLOCK, blocks
from edge_protocol.arrays import pack
from edge_protocol.votes import ClassVotes, class_odds

CLASSES, SAMPLES = 4, 5


def levels(below: int, low: int = 0) -> st.SearchStrategy[npt.NDArray[np.uint8]]:
    """One level for each sample."""
    values = st.lists(st.integers(low, below - 1), min_size=SAMPLES, max_size=SAMPLES)
    return values.map(lambda found: np.array(found, np.uint8))


@st.composite
def reports(draw: st.DrawFn) -> ClassVotes:
    """Votes for classes that are held; at least one is."""
    held = np.array(draw(st.lists(st.integers(0, 1), min_size=CLASSES, max_size=CLASSES)), np.uint8)
    held[draw(st.integers(0, CLASSES - 1))] = 1
    density = draw(levels(8))
    speaks = density > 0
    known = np.flatnonzero(held)
    classes = known[draw(levels(CLASSES)) % len(known)].astype(np.uint8) * speaks
    return ClassVotes(pack(classes), pack(draw(levels(4)) * speaks), pack(density), pack(held))


def one_by_one(votes: ClassVotes) -> npt.NDArray[np.float32]:
    """Odds of one report, each class divided by its mean."""
    odds = class_odds(votes)
    return np.asarray(odds / np.maximum(odds.mean(0), 1e-6))


@given(st.lists(reports(), min_size=1, max_size=4), st.lists(st.integers(0, CLASSES - 1), min_size=3, max_size=3))
def test_a_class_of_some_samples(votes: list[ClassVotes], named: list[int]) -> None:
    """Each device's ratio of one class on each sample picked, in the order picked."""
    rows, classes = np.array([3, 0, 3]), np.array(named)
    expected = np.stack([one_by_one(each)[rows, classes] for each in votes])
    (block,) = blocks(votes)
    np.testing.assert_allclose(block.picked(rows, classes), expected, rtol=1e-4, atol=1e-6)


@given(st.lists(reports(), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_weighted_sums(votes: list[ClassVotes], seed: int) -> None:
    """The sum of weight times ratio over devices, in every class."""
    weights = np.random.default_rng(seed).random((len(votes), CLASSES)).astype(np.float32)
    expected = sum(weight * one_by_one(each) for weight, each in zip(weights, votes, strict=True))
    (block,) = blocks(votes)
    np.testing.assert_allclose(block.weighted(weights), expected, rtol=1e-4, atol=1e-5)


def test_a_large_fleet_comes_in_blocks() -> None:
    """Every device is in one block, at its place."""
    silent = pack(np.zeros(SAMPLES, np.uint8))
    votes = [ClassVotes(silent, silent, silent, pack(np.ones(CLASSES, np.uint8)))] * (2 * BLOCK + 1)
    assert [block.devices for block in blocks(votes)] == [
        slice(0, BLOCK),
        slice(BLOCK, 2 * BLOCK),
        slice(2 * BLOCK, 2 * BLOCK + 1),
    ]
