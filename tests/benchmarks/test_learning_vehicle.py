"""The bookkeeping of the comparison on cameras: what is kept, who is there, what the figures mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.learning.aggregate import SAMPLES, ballots
from benchmarks.learning.answers import Answers, Setting, shuffled, there
from benchmarks.learning.fleet import deal_world
from benchmarks.learning.kept import kept, mark_of
from benchmarks.learning.vehicle import load
from benchmarks.learning.vehicle_arms import ARMS
from edge_protocol.arrays import unpack


def test_what_was_made_is_not_made_again(tmp_path: Path) -> None:
    """The second call reads the file; a name stands for what the piece depends on."""
    calls = iter([0.5])
    for _ in range(2):
        assert kept(tmp_path, "piece", lambda: {"curve": [next(calls)]})["made"] == {"curve": [0.5]}
    assert mark_of("a", 1) != mark_of("a", 2)


@pytest.mark.parametrize(("offline", "count"), [(0.0, 12), (0.3, 8)])
def test_as_many_devices_are_away_as_the_setting_says(offline: float, count: int) -> None:
    """The same ones for every method of a round, others in the next."""
    setting = Setting(offline=offline)
    mine = there(12, setting, 0, 1)
    assert len(mine) == count
    assert mine == there(12, setting, 0, 1) == sorted(set(mine))
    assert offline == 0 or mine != there(12, setting, 0, 2)


def test_a_larger_share_of_liars_includes_the_smaller() -> None:
    """So that more liars never are better ones."""
    world = type("World", (), {"devices": [None] * 10})()
    few, many = (Answers(world, Setting(liars=share), 0, lambda *_: None).liars for share in (0.2, 0.4))
    assert (len(few), len(many)) == (2, 4)
    assert few < many


def test_votes_travel_in_an_order_that_says_nothing() -> None:
    """The same levels, each with its own sample, elsewhere."""
    votes = ballots(1, np.random.default_rng(0))[0]
    moved = shuffled(votes)
    assert moved != votes
    pairs = [sorted(zip(v.classes.data, v.confidence.data, v.density.data, strict=True)) for v in (votes, moved)]
    assert pairs[0] == pairs[1]
    assert unpack(moved.classes).shape == (SAMPLES,)


@pytest.mark.parametrize("name", ["local", "ditto", "fedper", "fedmd", "feddistill"])
@pytest.mark.usefixtures("real_data")
def test_a_method_of_each_family_runs_on_real_crops(name: str) -> None:
    """One short round of three devices: a share of right answers, bytes, and every device's own test."""
    setting = Setting(alpha=1.0, devices=3, rounds=1, steps=1, first_steps=1, local_steps=1)
    world = deal_world(load()[0], devices=3, alpha=1.0, seed=0)
    result = ARMS[name](world, setting, 0)
    assert 0 <= result["curve"][-1] <= 1
    assert len(result["own"]["chosen"]) == 3
    assert (result["up"] > 0) == (name != "local")
    assert result["sent"] == [pytest.approx(result["up"])]
