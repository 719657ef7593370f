"""A fleet of cameras in one process: data dealt out by class and condition, devices that answer, students that learn.

Owns the partition and the course of an arm; every rule and every step is the product's own. Classes are dealt to
devices in Dirichlet proportions (Hsu et al. 2019), each device sees its own mixture of conditions, and no vehicle is on
two sides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from broker_server.distil_job import DistilSettings
from broker_server.distiller import (
    answer,
    constant,
    inputs_of,
    one_cycle,
    opinion_of_logits,
    score,
    teacher_lesson,
    train,
)
from broker_server.strategies import HiddenAnchors, make_strategy
from broker_server.strategies.base import Fusion
from broker_server.training import Lesson, Training
from devices.packs import ImagePack
from devices.preprocess import Preprocess
from edge_models.augment import augment
from edge_models.ratio_head import own_odds
from edge_models.samples import Samples
from edge_models.students import Student, build_student
from edge_models.tasks import load_task
from edge_protocol.errors import DataError
from edge_protocol.ids import DeviceId
from edge_protocol.task import TIERS, ImageInput, Tier
from edge_protocol.votes import class_votes
from roadcast.demo.image_shares import under
from roadcast.simulated.conditions import CONDITIONS

SPEC = load_task("vehicle")
CPU = torch.device("cpu")
KINDS = ("clean", "night", "fog", "blur", "low_resolution", "warm")
I8 = npt.NDArray[np.int64]
DRAWS = 20_000


@dataclass(frozen=True, eq=False)
class World:
    """Everybody's images: the server's anchors (to train on, and hidden), proxies, each device's own, and the test."""

    anchors: Samples
    hidden: Samples
    proxies: Samples
    devices: Sequence[Samples]
    test: Samples


def deal(pack: ImagePack, *, devices: int, alpha: float, seed: int) -> World:
    """Deal a pack out: 120 anchors, 60 hidden anchors, about 1,000 proxies, the rest to the devices."""
    rng = np.random.default_rng(seed)
    rest, held = np.flatnonzero(pack.split == 0), np.flatnonzero(pack.split == 1)
    server: list[Samples] = []
    for count in (120, 60, 1000):
        mine = _balanced(pack, rest, count, rng)
        rest = np.setdiff1d(rest, mine)
        server.append(_seen(pack, mine, np.ones(len(KINDS)), rng))
    shares = _proportions(len(pack.classes), devices, alpha, rng)
    hands = _deal(pack, rest, shares, rng)
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


def run_arm(world: World, arm: Arm, *, rounds: int, settings: DistilSettings, say: Callable[[float], None]) -> float:
    """Go through the rounds of an arm; return the accuracy on the test, mean over tiers.

    ``central`` trains on everybody's labelled images, ``anchors`` on the server's alone, both for as many steps.
    """
    own = _labelled(world.anchors, 1.0, settings.batch)
    students = {tier: _first(tier, own, settings) for tier in TIERS}
    trainings = {tier: Training(student, SPEC, CPU) for tier, student in students.items()}
    test = inputs_of(world.test, SPEC)
    accuracy = 0.0
    for number in range(1, rounds + 1):
        beside = _labelled(world.anchors, settings.anchor_weight, settings.batch // 2)
        lessons = [_lesson(world, arm, students, number, settings), beside]
        plan = replace_seed(settings, settings.seed + number)
        for tier in TIERS:
            train(
                trainings[tier],
                lessons,
                plan,
                settings.steps,
                constant(settings.learning_rate),
                progress=lambda *_: None,
            )
            students[tier] = trainings[tier].average
        accuracy = float(np.mean([score(student, test, world.test, SPEC)["accuracy"] for student in students.values()]))
        say(accuracy)
    return accuracy


def replace_seed(settings: DistilSettings, seed: int) -> DistilSettings:
    """The same settings under another seed."""
    return DistilSettings(
        **{name: getattr(settings, name) for name in DistilSettings.__struct_fields__} | {"seed": seed}
    )


def _lesson(world: World, arm: Arm, students: Mapping[Tier, Student], number: int, settings: DistilSettings) -> Lesson:
    if not arm.strategy:
        taught = Samples.concat(world.devices) if arm.pooled else world.anchors
        return _labelled(taught, 1.0, settings.batch)
    asked = Samples.concat([world.proxies, world.hidden])
    x, shared = inputs_of(asked, SPEC), Fusion()
    for student in students.values():
        shared.add(opinion_of_logits(answer(student, x)[1], SPEC), 1.0)
    rows = np.arange(len(world.proxies), len(asked))
    strategy = make_strategy(settings, shared.result(), HiddenAnchors(rows, world.hidden.targets))
    if arm.strategy != "self":
        views = {tier: _views(student, x, 4, number) for tier, student in students.items()}
        for at, own in enumerate(world.devices):
            tier = TIERS[at % len(TIERS)]
            mine = _views(students[tier], inputs_of(own, SPEC), 8, number)
            labels = own.targets.astype(np.int64)
            odds = own_odds(mine, labels, views[tier], len(SPEC.labels), seed=100 * number + at)
            held = (np.bincount(labels, minlength=len(SPEC.labels)) >= 3).astype(np.uint8)
            strategy.add(DeviceId(f"camera-{at:02d}"), class_votes(odds, held))
    teacher = strategy.teacher().take(np.arange(len(world.proxies)))
    return teacher_lesson(x[: len(world.proxies)], teacher, temperature=settings.temperature, batch=settings.batch)


def _views(student: Student, x: Tensor, count: int, seed: int) -> npt.NDArray[np.float32]:
    generator = torch.Generator().manual_seed(seed)
    varied = (augment(x, SPEC.input, generator) for _ in range(count - 1))
    return np.stack([answer(student, x)[0], *(answer(student, view)[0] for view in varied)])


def _labelled(samples: Samples, weight: float, batch: int) -> Lesson:
    truth = torch.from_numpy(samples.targets.astype(np.int64))
    return Lesson(inputs_of(samples, SPEC), truth, torch.nn.functional.cross_entropy, weight, batch)


def _first(tier: Tier, own: Lesson, settings: DistilSettings) -> Student:
    training = Training(build_student(SPEC, tier, settings.seed), SPEC, CPU)
    pace = one_cycle(settings.first_learning_rate, settings.first_steps)
    train(training, [own], settings, settings.first_steps, pace, progress=lambda *_: None)
    return training.average


def _seen(pack: ImagePack, rows: I8, conditions: npt.NDArray[np.float64], rng: np.random.Generator) -> Samples:
    assert isinstance(SPEC.input, ImageInput)
    assert set(KINDS) <= set(CONDITIONS)
    seen = under(replace(pack.take(rows)), dict(zip(KINDS, conditions.tolist(), strict=True)), rng)
    prepare = Preprocess(SPEC.input)
    return Samples.of(np.stack([prepare.raw(image) for image in seen.images]), seen.labels.astype(np.int64))


def _proportions(classes: int, devices: int, alpha: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    for _ in range(DRAWS):
        shares = rng.dirichlet(np.full(devices, alpha), classes)
        if shares.sum(0).min() >= 0.25 * classes / devices:
            return shares
    raise DataError(f"no partition of {classes} classes over {devices} devices at alpha {alpha} gives everyone a share")


def _groups(pack: ImagePack, rows: I8, rng: np.random.Generator) -> list[I8]:
    return [rows[pack.groups[rows] == group] for group in rng.permutation(np.unique(pack.groups[rows]))]


def _balanced(pack: ImagePack, rows: I8, count: int, rng: np.random.Generator) -> I8:
    taken: list[I8] = []
    for label in range(len(pack.classes)):
        left = count // len(pack.classes)
        for group in _groups(pack, rows[pack.labels[rows] == label], rng):
            if len(group) <= left:
                taken.append(group)
                left -= len(group)
    return np.sort(np.concatenate(taken))


def _deal(pack: ImagePack, rows: I8, shares: npt.NDArray[np.float64], rng: np.random.Generator) -> list[I8]:
    hands: list[list[I8]] = [[] for _ in range(shares.shape[1])]
    for label in range(len(pack.classes)):
        mine = rows[pack.labels[rows] == label]
        filled = np.zeros(shares.shape[1])
        for group in _groups(pack, mine, rng):
            to = int(np.argmax(shares[label] * len(mine) - filled))
            filled[to] += len(group)
            hands[to].append(group)
    return [np.sort(np.concatenate(hand)) for hand in hands]
