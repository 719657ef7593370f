"""What class means teach when no device answers a sample, beside no report at all and beside votes on proxies.

Twelve cameras, three tiers, the product's own class means, strategies and distiller; figures after ``--rounds`` rounds.
Arms without proxies are taught once on the server's own unlabelled images and once on its anchors alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import torch

from benchmarks.harness import Options, Outcome, Own, Target, run, spread
from benchmarks.learning.answers import Answers, Setting
from benchmarks.learning.class_means import Students, heard, spaces
from benchmarks.learning.fleet import SPEC, World, deal_world, first_student
from benchmarks.learning.vehicle import load
from broker_server.distil_job import DistilSettings
from broker_server.distiller import (
    anchor_lesson,
    constant,
    inputs_of,
    score,
    shared_opinion,
    teacher_lesson,
    train,
)
from broker_server.strategies import PROTOTYPE_RULES, HiddenAnchors, Opinion, make_strategy
from broker_server.strategies.prototype_teacher import PrototypeTeacher
from broker_server.training import Training
from edge_models.samples import Samples
from edge_protocol.task import TIERS

CPU = torch.device("cpu")
VOTES, CONTROL = "feddistill", "self"


@dataclass(frozen=True, eq=False)
class Arm:
    """A strategy, and what the server has besides labelled anchors: unlabelled images, or nothing."""

    strategy: str
    pool: bool

    def __str__(self) -> str:
        return f"{self.strategy}{'' if self.pool else ', anchors only'}"


ARMS = (
    Arm(CONTROL, pool=True),
    Arm("fedproto", pool=True),
    Arm("fedtgp", pool=True),
    Arm(VOTES, pool=True),
    Arm(CONTROL, pool=False),
    Arm("fedproto", pool=False),
    Arm("fedtgp", pool=False),
)


@dataclass(frozen=True)
class Found:
    """Accuracy of the last teacher on what it taught on, of the students on the test; bytes of a report."""

    teacher: float
    student: float
    bytes_up: float


def taught(arm: Arm, answers: Answers, students: Students, number: int, plan: DistilSettings) -> tuple[Opinion, float]:
    """The teacher of a round on the samples of `pool_of`, and the bytes of a report."""
    world = answers.world
    unlabelled = pool_of(arm, world)
    asked = Samples.concat([unlabelled, world.hidden])
    x, hidden = inputs_of(asked, SPEC), np.arange(len(unlabelled), len(asked))
    shared, anchors = shared_opinion(students.values(), x, SPEC), HiddenAnchors(hidden, world.hidden.targets)
    size = 0.0
    if kind := PROTOTYPE_RULES.get(arm.strategy):
        one = PrototypeTeacher(kind, SPEC, number, spaces(students, x, world.anchors), shared, plan, anchors)
        size = float(np.mean(heard(world, students, number, one, range(len(world.devices)))))
        return one.teacher().take(np.arange(len(unlabelled))), size
    strategy = make_strategy(plan, shared, anchors)
    if arm.strategy == VOTES:
        answers.collect(students, x, number, strategy)
        size = float(np.mean(answers.bytes_up[-len(world.devices) :]))
    return strategy.teacher().take(np.arange(len(unlabelled))), size


def pool_of(arm: Arm, world: World) -> Samples:
    """What the students learn on under the teacher: the server's images, or all its anchors without their labels."""
    return world.proxies if arm.pool else Samples.concat([world.anchors, world.hidden])


def trained(arm: Arm, world: World, setting: Setting, seed: int) -> Found:
    """Pass all rounds."""
    plan = msgspec.structs.replace(setting.distil(seed), strategy=arm.strategy)
    students = {tier: first_student(tier, world.anchors, setting.distil(seed)) for tier in TIERS}
    trainings = {tier: Training(student, SPEC, CPU) for tier, student in students.items()}
    answers, unlabelled = Answers(world, setting, seed, lambda *_: None), pool_of(arm, world)
    x = inputs_of(unlabelled, SPEC)
    beside = anchor_lesson(world.anchors, SPEC, weight=plan.anchor_weight, batch=plan.batch // 2)
    right, size, pace = 0.0, 0.0, constant(plan.learning_rate)
    for number in range(1, setting.rounds + 1):
        teacher, size = taught(arm, answers, students, number, plan)
        right = float((teacher.value.argmax(1) == unlabelled.targets).mean())
        lesson = teacher_lesson(x, teacher, temperature=plan.temperature, batch=plan.batch)
        turn = msgspec.structs.replace(plan, seed=seed + number)
        for tier in TIERS:
            train(
                trainings[tier],
                [lesson, beside],
                turn,
                plan.steps,
                pace,
                progress=lambda *_: None,
            )
            students[tier] = trainings[tier].average
    test = inputs_of(world.test, SPEC)
    scores = [score(student, test, world.test, SPEC)["accuracy"] for student in students.values()]
    return Found(right, float(np.mean(scores)), size)


def measured(options: Options, *, rounds: int, seeds: int) -> Outcome:
    """Compare class means with no report and with votes; --quick takes four devices, one round and few steps."""
    torch.set_num_threads(1)
    setting = Setting(rounds=rounds)
    if options.quick:
        setting, seeds = replace(setting, devices=4, rounds=1, steps=5, first_steps=20), 1
    found: dict[str, list[Found]] = {str(arm): [] for arm in ARMS}
    for seed in range(seeds):
        world = deal_world(load()[0], devices=setting.devices, alpha=setting.alpha, seed=seed)
        for arm in ARMS:
            begun = time.process_time()
            found[str(arm)].append(trained(arm, world, setting, seed))
            sys.stderr.write(f"seed {seed} {arm}: {found[str(arm)][-1]} in {time.process_time() - begun:.0f} CPU s\n")
    return _outcome(found, setting, seeds)


def _outcome(found: Mapping[str, Sequence[Found]], setting: Setting, seeds: int) -> Outcome:
    rows: list[list[object]] = [["what teaches", "teacher, %", "students, %", "bytes of a report"]]
    for name, each in found.items():
        cells = [spread([getattr(one, what) for one in each]) for what in ("teacher", "student", "bytes_up")]
        rows.append([name, *(f"{100 * cell.median:.1f}" for cell in cells[:2]), f"{cells[2].median:.0f}"])
    best = {name: spread([one.student for one in each]) for name, each in found.items()}
    gained = best["fedproto"].median - best[CONTROL].median
    whole = setting.first_steps == Setting.first_steps
    targets = [Target("points on no report", 100 * gained, 1.0, at_most=False)] if whole else []
    return Outcome(
        f"vehicle, {setting.devices} devices, {setting.rounds} rounds, {seeds} seeds: fedproto gives students "
        f"{100 * gained:+.1f} points on no report",
        {name: [msgspec.to_builtins(one) for one in each] for name, each in found.items()},
        targets,
        rows,
    )


if __name__ == "__main__":
    raise SystemExit(run(measured, rounds=Own(3, "how many"), seeds=Own(1, "how many")))
