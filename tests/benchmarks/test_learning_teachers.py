"""What a round asks of a fleet, and what its students are taught from."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from benchmarks.learning.answers import Answers, Setting
from benchmarks.learning.fleet import SPEC, World
from benchmarks.learning.teachers import stale, teaching
from broker_server.distil_job import DistilSettings
from broker_server.strategies import Strategy
from edge_models.samples import Samples
from edge_models.students import build_student
from edge_models.tasks import plugin_of
from edge_protocol.task import TIERS

PROXIES, HIDDEN, DEVICES = 24, 12, 2
PASSING = 5
"""Hidden anchors that pass for proxies in a round: of each of the six classes half, rounded down."""
STUDENTS = {tier: build_student(SPEC, tier) for tier in TIERS}


@cache
def samples(count: int, seed: int) -> Samples:
    """Simulated crops."""
    return plugin_of(SPEC).simulate(SPEC, np.random.default_rng(seed), count)


def answers(asked: list[int], *, offline: float = 0.0) -> Answers:
    """A small fleet; the numbers of samples that its devices are asked about are noted."""
    world = World(
        anchors=samples(18, 0),
        hidden=samples(HIDDEN, 1),
        proxies=samples(PROXIES, 2),
        devices=[samples(48, 3 + at) for at in range(DEVICES)],
        own_tests=[samples(6, 9)] * DEVICES,
        test=samples(6, 10),
    )

    def watch(_: int, strategy: Strategy, __: object) -> None:
        asked.append(len(strategy.shared.value))

    return Answers(world, Setting(devices=DEVICES, offline=offline), 0, watch)


@pytest.mark.parametrize(
    ("lifetime", "most"), [(1, [12, 12]), (99, [12, 11])], ids=["always stale", "never stale again"]
)
def test_only_stale_samples_are_asked_about(lifetime: int, most: list[int]) -> None:
    """Half of the proxies teach in each round; with a cache no row is asked twice, and fewer bytes are sent."""
    asked: list[int] = []
    fleet, plan = answers(asked), DistilSettings(strategy="dsfl")
    teach = stale(fleet, plan, lifetime=lifetime)
    for number in (1, 2):
        assert len(teach(STUDENTS, number).x) == PROXIES // 2
    assert asked[0] == most[0]
    assert all(count <= limit for count, limit in zip(asked, most, strict=False))
    assert len(fleet.bytes_up) == DEVICES * len(asked)
    if lifetime == 99:
        assert sum(asked) <= PROXIES
        first, later = fleet.bytes_up[:DEVICES], fleet.bytes_up[DEVICES : 2 * DEVICES]
        assert sum(later) < sum(first)


def test_the_method_with_the_cache_teaches_what_dsfl_fuses() -> None:
    """Asked about every chosen sample, its lesson is DS-FL's on the same samples: a sharp opinion."""
    fleet = answers([])
    lesson = teaching("scarlet", fleet, DistilSettings(strategy="scarlet"))(STUDENTS, 1)
    assert len(lesson.truth) == PROXIES // 2
    assert lesson.truth.numpy().max(1).mean() > 0.3


@pytest.mark.parametrize("rule", ["fedproto", "fedtgp"])
def test_class_means_teach_without_an_answer(rule: str) -> None:
    """Whoever is there tells its class means, of a few hundred bytes; nobody is asked about a sample."""
    asked: list[int] = []
    fleet = answers(asked, offline=0.5)
    lesson = teaching(rule, fleet, DistilSettings(strategy=rule))(STUDENTS, 1)
    assert len(lesson.x) == PROXIES + PASSING
    assert asked == []
    assert len(fleet.bytes_up) == DEVICES - 1
    assert all(100 < size < 2000 for size in fleet.bytes_up)


def test_the_control_asks_nobody() -> None:
    """Self-training sends nothing."""
    fleet = answers([])
    assert len(teaching("self", fleet, DistilSettings(strategy="self"))(STUDENTS, 1).x) == PROXIES + PASSING
    assert fleet.bytes_up == []
