"""A fleet of cameras in one process: data dealt out by class and condition, devices that answer, students that learn.

Owns the partition and the course of an arm; every rule and every step is the product's own. Classes are dealt to
devices in Dirichlet proportions (Hsu et al. 2019), each device sees its own mixture of conditions, and no vehicle is on
two sides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from broker_server.distil_job import DistilSettings
from broker_server.distiller import (
    anchor_lesson,
    answer,
    constant,
    cycled,
    inputs_of,
    score,
    shared_opinion,
    teacher_lesson,
    train,
)
from broker_server.strategies import HiddenAnchors, make_strategy
from broker_server.training import Lesson, Training
from devices.packs import ImagePack
from devices.preprocess import Preprocess
from edge_client.trainer import LEAST_EXAMPLES, OWN_VIEWS, PROXY_VIEWS
from edge_models.augment import augment
from edge_models.privacy import held_classes
from edge_models.ratio_head import own_odds
from edge_models.samples import Samples
from edge_models.students import Student, build_student
from edge_models.tasks import load_task
from edge_protocol.errors import DataError
from edge_protocol.ids import DeviceId
from edge_protocol.task import TIERS, ImageInput, Tier
from edge_protocol.votes import class_votes
from roadcast.demo.image_shares import balanced, deal, proportions, under
from roadcast.simulated.conditions import CONDITIONS

SPEC = load_task("vehicle")
CPU = torch.device("cpu")
KINDS = ("clean", "night", "fog", "blur", "low_resolution", "warm")
I8 = npt.NDArray[np.int64]
DRAWS = 20_000
LEAST_SHARE = 0.25
"""Every device gets at least this part of an equal share: a camera that never saw a vehicle is none."""


@dataclass(frozen=True, eq=False)
class World:
    """Everybody's images: the server's anchors (to train on, and hidden), proxies, each device's own, and the test."""

    anchors: Samples
    hidden: Samples
    proxies: Samples
    devices: Sequence[Samples]
    test: Samples


def deal_world(pack: ImagePack, *, devices: int, alpha: float, seed: int) -> World:
    """Deal a pack out: 120 anchors, 60 hidden anchors, about 1,000 proxies, the rest to the devices."""
    rng = np.random.default_rng(seed)
    rest, held = np.flatnonzero(pack.split == 0), np.flatnonzero(pack.split == 1)
    server: list[Samples] = []
    for count in (120, 60, 1000):
        mine = balanced(pack, rest, count, rng)
        rest = np.setdiff1d(rest, mine)
        server.append(_seen(pack, mine, np.ones(len(KINDS)), rng))
    shares = proportions(len(pack.classes), devices, rng, skew=alpha, least=LEAST_SHARE, draws=DRAWS)
    if shares is None:
        raise DataError(f"no draw at Dirichlet {alpha} gives each of {devices} devices {LEAST_SHARE} of an equal share")
    hands = deal(pack, rest, shares, rng)
    cameras = [_seen(pack, hand, rng.dirichlet(np.ones(len(KINDS))), rng) for hand in hands]
    anchors, hidden, proxies = server
    return World(anchors, hidden, proxies, cameras, _seen(pack, np.tile(held, 2), np.ones(len(KINDS)), rng))


@dataclass(frozen=True, eq=False)
class Arm:
    """One way of learning: the strategy that makes a round's teacher; without one, labels, the server's or all."""

    strategy: str = ""
    pooled: bool = False


ARMS: Mapping[str, Arm] = {
    "anchors": Arm(),
    "self": Arm("self"),
    "mean": Arm("mean"),
    "feddistill": Arm("feddistill"),
    "central": Arm(pooled=True),
}


def run_arm(
    world: World,
    arm: Arm,
    *,
    rounds: int,
    settings: DistilSettings,
    say: Callable[[float], None],
    keep: Callable[[Mapping[Tier, Student]], None] = lambda _: None,
) -> float:
    """Go through the rounds of an arm; return the accuracy on the test, mean over tiers.

    ``central`` trains on everybody's labelled images, ``anchors`` on the server's alone, both for as many steps.
    `keep` is shown the students of the first release and of every round.
    """
    students = {tier: _first(tier, world.anchors, settings) for tier in TIERS}
    keep(dict(students))
    trainings = {tier: Training(student, SPEC, CPU) for tier, student in students.items()}
    test = inputs_of(world.test, SPEC)
    beside = anchor_lesson(world.anchors, SPEC, weight=settings.anchor_weight, batch=settings.batch // 2)
    labels = Samples.concat(world.devices) if arm.pooled else world.anchors
    taught = anchor_lesson(labels, SPEC, weight=1.0, batch=settings.batch)
    accuracy = 0.0
    for number in range(1, rounds + 1):
        lesson = _from_teacher(world, arm, students, number, settings) if arm.strategy else taught
        plan = msgspec.structs.replace(settings, seed=settings.seed + number)
        pace = constant(settings.learning_rate)
        for tier in TIERS:
            train(trainings[tier], [lesson, beside], plan, settings.steps, pace, progress=lambda *_: None)
            students[tier] = trainings[tier].average
        keep(dict(students))
        accuracy = float(np.mean([score(student, test, world.test, SPEC)["accuracy"] for student in students.values()]))
        say(accuracy)
    return accuracy


def _from_teacher(
    world: World, arm: Arm, students: Mapping[Tier, Student], number: int, settings: DistilSettings
) -> Lesson:
    """Let every device answer, and make the teacher of it."""
    asked, proxies = Samples.concat([world.proxies, world.hidden]), np.arange(len(world.proxies))
    x = inputs_of(asked, SPEC)
    anchors = HiddenAnchors(np.arange(len(proxies), len(asked)), world.hidden.targets)
    named = msgspec.structs.replace(settings, strategy=arm.strategy)
    strategy = make_strategy(named, shared_opinion(students.values(), x, SPEC), anchors)
    if arm.strategy != "self":
        views = {tier: _views(student, x, PROXY_VIEWS, number) for tier, student in students.items()}
        for at, own in enumerate(world.devices):
            tier, labels = TIERS[at % len(TIERS)], own.targets.astype(np.int64)
            held = held_classes(labels, len(SPEC.labels), LEAST_EXAMPLES)
            known = np.isin(labels, np.flatnonzero(held))
            mine = _views(students[tier], inputs_of(own.take(known), SPEC), OWN_VIEWS, number)
            odds = own_odds(mine, labels[known], views[tier], len(SPEC.labels), seed=100 * number + at)
            strategy.add(DeviceId(f"camera-{at:02d}"), class_votes(odds, held))
    teacher = strategy.teacher().take(proxies)
    return teacher_lesson(x[: len(proxies)], teacher, temperature=settings.temperature, batch=settings.batch)


def _views(student: Student, x: Tensor, count: int, seed: int) -> npt.NDArray[np.float32]:
    generator = torch.Generator().manual_seed(seed)
    varied = (augment(x, SPEC.input, generator) for _ in range(count - 1))
    return np.stack([answer(student, x)[0], *(answer(student, view)[0] for view in varied)])


def _first(tier: Tier, anchors: Samples, settings: DistilSettings) -> Student:
    training = Training(build_student(SPEC, tier, settings.seed), SPEC, CPU)
    lesson, pace = anchor_lesson(anchors, SPEC, weight=1.0, batch=settings.batch), settings.first_learning_rate
    steps = settings.first_steps
    train(training, [lesson], settings, steps, cycled(pace, steps), progress=lambda *_: None)
    return training.average


def _seen(pack: ImagePack, rows: I8, conditions: npt.NDArray[np.float64], rng: np.random.Generator) -> Samples:
    assert isinstance(SPEC.input, ImageInput)
    assert set(KINDS) <= set(CONDITIONS)
    seen = under(pack.take(rows), dict(zip(KINDS, conditions.tolist(), strict=True)), rng)
    prepare = Preprocess(SPEC.input)
    return Samples.of(np.stack([prepare.raw(image) for image in seen.images]), seen.labels.astype(np.int64))
