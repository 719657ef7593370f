"""Who was in a device's training data? Membership inference against its reports and against the distilled model.

The attacker has the worst case of proxies: the very images in question are among them, with their classes. Half of each
device's images, drawn anew in each run, are members. Attacks: the odds reported for an image's class; the same with
every other run as shadow (`attacks.likelihood_ratios`); how much the loss of the shared model fell from the release
before to the one distilled from the reports (difficulty calibration, Watson et al. 2022). Beside them the accuracy of
teacher and student: what the noise costs.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from benchmarks.harness import Options, Outcome, Own, Target, run
from benchmarks.learning import attacks
from benchmarks.learning.answers import Setting
from benchmarks.learning.attacks import B1, F8, Interval, area, caught, interval
from benchmarks.learning.fleet import SPEC, World, deal_world, first_student, views
from benchmarks.learning.vehicle import load
from broker_server.distil_job import DistilSettings
from broker_server.distiller import (
    anchor_lesson,
    answer,
    constant,
    inputs_of,
    score,
    shared_opinion,
    teacher_lesson,
    train,
)
from broker_server.strategies import HiddenAnchors, make_strategy
from broker_server.training import Training
from edge_client.config import PrivacyConfig
from edge_client.trainer import LEAST_EXAMPLES, OWN_VIEWS, PROXY_VIEWS
from edge_models.privacy import held_classes, sigma_for
from edge_models.private_odds import Background, noisy_totals
from edge_models.private_odds import answer as private_answer
from edge_models.ratio_head import own_odds
from edge_models.samples import Samples
from edge_models.students import Student
from edge_protocol.ids import DeviceId
from edge_protocol.votes import class_odds, class_votes

F4 = npt.NDArray[np.float32]
I8 = npt.NDArray[np.int64]
Said: TypeAlias = tuple[F4, npt.NDArray[np.uint8]]
CLASSES = len(SPEC.labels)
EPSILONS: tuple[float | None, ...] = (None, 8.0, 2.0, 1.0)
"""Of one report; None for reports without noise."""
DOCUMENTED = 2.0
"""The one that ``docs/operations.md`` shows."""
DELTA = PrivacyConfig().delta
NEAR_GUESSING = 0.55
RARE = 20
"""A class is rare on a device with fewer images of it, half of which are members."""


@dataclass(frozen=True, eq=False)
class Pool:
    """One device's images as the released trunk sees them.

    Attributes:
        own: (OWN_VIEWS, M, K) features.
        asked: (PROXY_VIEWS, N + M, K) features of proxies, hidden anchors, then the device's own images.
        named: (N + M,) int64 what the shared head takes those for.
        labels: (M,) int64.
    """

    own: F4
    asked: F4
    named: I8
    labels: I8


@dataclass(frozen=True, eq=False)
class Scene:
    """A fleet before a round: its world, the release, each device's pool.

    Attributes:
        before: (sum of M,) loss of the release on each device's images.
    """

    world: World
    student: Student
    pools: Sequence[Pool]
    settings: DistilSettings
    before: F8


def make_scene(world: World, settings: DistilSettings) -> Scene:
    """Train the first release and look at everything with it."""
    student = first_student("nano", world.anchors, settings)
    asked = views(student, inputs_of(Samples.concat([world.proxies, world.hidden]), SPEC), PROXY_VIEWS, 1)
    head = {name: value.detach().numpy() for name, value in student.head.named_parameters()}
    pools = []
    for own in world.devices:
        x = inputs_of(own, SPEC)
        everything = np.concatenate([asked, views(student, x, PROXY_VIEWS, 2)], 1)
        named = (everything[0] @ head["weight"].T + head["bias"]).argmax(1)
        pools.append(Pool(views(student, x, OWN_VIEWS, 3), everything, named, own.targets.astype(np.int64)))
    return Scene(world, student, pools, settings, losses(student, world.devices))


def report(pool: Pool, member: B1, epsilon: float | None, seed: int) -> Said:
    """What a device with these members answers, as its training subprocess works it out: odds and classes held."""
    labels = pool.labels[member]
    if epsilon is None:
        held = held_classes(labels, CLASSES, LEAST_EXAMPLES)
        known = np.isin(labels, np.flatnonzero(held))
        odds = own_odds(pool.own[:, member][:, known], labels[known], pool.asked, CLASSES, seed=seed)
        return odds, held
    sigma = sigma_for(epsilon, DELTA)
    background = Background.of(pool.asked[0], pool.named, CLASSES)
    totals = noisy_totals(background, [(pool.own[0, member], labels)], sigma, np.random.default_rng(seed))
    told = private_answer(background, totals, pool.asked, sigma=sigma, k=LEAST_EXAMPLES)
    return told.odds, told.held.astype(np.uint8)


def distil(scene: Scene, reports: Sequence[Said], seed: int) -> tuple[Student, float, float]:
    """Distil one round of reports into the release; return the student, its accuracy, and that of the teacher."""
    world, settings = scene.world, msgspec.structs.replace(scene.settings, seed=seed)
    asked = Samples.concat([world.proxies, world.hidden])
    count = len(world.proxies)
    x = inputs_of(asked, SPEC)
    anchors = HiddenAnchors(np.arange(count, len(asked)), world.hidden.targets)
    strategy = make_strategy(settings, shared_opinion([scene.student], x, SPEC), anchors)
    for at, (odds, held) in enumerate(reports):
        strategy.add(DeviceId(f"camera-{at:02d}"), class_votes(odds[: len(asked)], held))
    teacher = strategy.teacher().take(np.arange(count))
    training = Training(scene.student, SPEC, torch.device("cpu"))
    lessons = [
        teacher_lesson(x[:count], teacher, temperature=settings.temperature, batch=settings.batch),
        anchor_lesson(world.anchors, SPEC, weight=settings.anchor_weight, batch=settings.batch // 2),
    ]
    train(training, lessons, settings, settings.steps, constant(settings.learning_rate), progress=lambda *_: None)
    student = training.average
    accuracy = score(student, inputs_of(world.test, SPEC), world.test, SPEC)["accuracy"]
    return student, accuracy, float((teacher.value.argmax(1) == world.proxies.targets).mean())


def losses(student: Student, devices: Sequence[Samples]) -> F8:
    """Cross-entropy of a student on all devices' images, one after the other: (sum of M,)."""
    own = Samples.concat(devices)
    logits = torch.from_numpy(answer(student, inputs_of(own, SPEC))[1])
    truth = torch.from_numpy(own.targets.astype(np.int64))
    return functional.cross_entropy(logits, truth, reduction="none").numpy().astype(np.float64)


def own_scores(scene: Scene, reports: Sequence[Said]) -> F8:
    """Logarithm of the odds that each device reports for its own images' classes: (sum of M,)."""
    found = []
    for pool, (told, held) in zip(scene.pools, reports, strict=True):
        odds = class_odds(class_votes(told[-len(pool.labels) :], held))
        found.append(np.log(odds[np.arange(len(odds)), pool.labels] + 1e-6))
    return np.concatenate(found).astype(np.float64)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What came of one arm: attacks' figures, and what teacher and student are worth.

    Attributes:
        auc: of the odds as reported.
        shadow_auc, shadow_caught: of the odds with the other runs as shadows; `rare_auc` among images of rare classes.
        model_auc, model_caught: of the fall of the shared model's loss.
        teacher, student: accuracy on the proxies, on the test.
    """

    auc: Interval
    shadow_auc: Interval
    shadow_caught: Interval
    rare_auc: Interval
    model_auc: Interval
    model_caught: Interval
    teacher: float
    student: float


def attack(scene: Scene, epsilon: float | None, member: B1, *, distilled: int, repeats: int) -> Found:
    """Let every device answer in every run, distil the first runs, and attack.

    Args:
        scene: the fleet.
        epsilon: of a report.
        member: (R, sum of M) who trained on what.
        distilled: runs that are distilled.
        repeats: of the bootstrap.
    """
    edges = np.cumsum([0, *(len(pool.labels) for pool in scene.pools)])
    scores, fallen, teachers, students = [], [], [], []
    for number, mine in enumerate(member):
        reports = [
            report(pool, mine[start:end], epsilon, seed=1000 * number + at)
            for at, (pool, start, end) in enumerate(zip(scene.pools, edges, edges[1:], strict=False))
        ]
        scores.append(own_scores(scene, reports))
        if number < distilled:
            student, accuracy, teacher = distil(scene, reports, seed=number)
            fallen.append(scene.before - losses(student, scene.world.devices))
            teachers.append(teacher)
            students.append(accuracy)
    told, fell, rng = np.stack(scores), np.stack(fallen), np.random.default_rng(0)
    shadowed = attacks.likelihood_ratios(told, member)
    whose = member[:distilled]
    rare = np.concatenate([np.bincount(pool.labels)[pool.labels] < RARE for pool in scene.pools])
    return Found(
        auc=interval(area, told, member, rng, repeats),
        shadow_auc=interval(area, shadowed, member, rng, repeats),
        shadow_caught=interval(caught, shadowed, member, rng, repeats),
        rare_auc=interval(area, shadowed[:, rare], member[:, rare], rng, repeats),
        model_auc=interval(area, fell, whose, rng, repeats),
        model_caught=interval(caught, fell, whose, rng, repeats),
        teacher=float(np.mean(teachers)),
        student=float(np.mean(students)),
    )


def measured(options: Options, *, runs: int) -> Outcome:
    """Attack a fleet without noise and with noise at several epsilons; --quick takes fewer devices, runs and steps."""
    torch.set_num_threads(1)
    runs = max(runs, 2)
    world = deal_world(load()[0], devices=Setting.devices, alpha=Setting.alpha, seed=0)
    settings = DistilSettings(steps=150, first_steps=400, seed=0)
    distilled, repeats, epsilons = 2, 200, EPSILONS
    if options.quick:
        few = list(world.devices)[:4]
        world = dataclasses.replace(world, devices=few)
        settings = msgspec.structs.replace(settings, steps=10, first_steps=60)
        runs, repeats, epsilons = 4, 50, (None, DOCUMENTED)
    scene = make_scene(world, settings)
    member = attacks.halves(runs, sum(map(len, world.devices)), np.random.default_rng(1))
    found: dict[float | None, Found] = {}
    for epsilon in epsilons:
        begun = time.process_time()
        found[epsilon] = attack(scene, epsilon, member, distilled=distilled, repeats=repeats)
        sys.stderr.write(f"{_name(epsilon)} in {time.process_time() - begun:.0f} CPU s\n")
    alone = np.mean([distil(scene, [], seed=number)[1:] for number in range(distilled)], 0)
    return _outcome(found, alone.tolist(), runs, len(world.devices))


def _outcome(found: dict[float | None, Found], alone: list[float], runs: int, devices: int) -> Outcome:
    columns = ["reports", "AUC", "AUC, shadows", "rare classes", "TPR at 1 % FPR, shadows", "no attack exceeds"]
    rows: list[list[object]] = [[*columns, "AUC, model", "TPR at 1 % FPR, model", "teacher", "student"]]
    for epsilon, arm in found.items():
        bound = "-" if epsilon is None else f"{attacks.most_caught(epsilon, DELTA):.3f}"
        figures = [arm.auc, arm.shadow_auc, arm.rare_auc, arm.shadow_caught, bound, arm.model_auc, arm.model_caught]
        rows.append([_name(epsilon), *map(str, figures), arm.teacher, arm.student])
    rows.append(["no reports", *"-------", alone[1], alone[0]])
    plain, noisy = found[None], found[DOCUMENTED]
    return Outcome(
        f"vehicle, {devices} devices, {runs} runs: AUC with shadows {plain.shadow_auc} without noise, "
        f"{noisy.shadow_auc} at epsilon {DOCUMENTED:g} a report",
        {_name(epsilon): msgspec.to_builtins(arm) for epsilon, arm in found.items()} | {"no reports": alone},
        [
            Target(f"AUC at epsilon {DOCUMENTED:g}, lower end", noisy.shadow_auc.low, NEAR_GUESSING),
            Target(
                "true positives at 1 % false ones there, against the proof",
                noisy.shadow_caught.low,
                attacks.most_caught(DOCUMENTED, DELTA),
            ),
        ],
        rows,
    )


def _name(epsilon: float | None) -> str:
    return "without noise" if epsilon is None else f"epsilon {epsilon:g}"


if __name__ == "__main__":
    raise SystemExit(run(measured, runs=Own(8, "of the fleet, each with another half of its images; 2 at least")))
