"""The methods that are compared on cameras: all begin with the same first students, and pass the same rounds.

Owns the course of a method; owns neither data nor table. Three families: a server that trains students under a teacher
or under labels; devices that share weights of one architecture; and devices alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import msgspec
import numpy as np
import torch

from benchmarks.learning.answers import Answers, Setting, Watch, device_at, there
from benchmarks.learning.downlink import Downlink, proxy_bytes
from benchmarks.learning.fleet import SPEC, World, first_student
from benchmarks.learning.teachers import Teach, teaching
from broker_server.distiller import anchor_lesson, answer, constant, inputs_of, opinion_of_logits, score, train
from broker_server.strategies import WEIGHT_RULES
from broker_server.strategies.base import Fusion
from broker_server.training import Training
from edge_models.fit import fit_personal_head
from edge_models.head_fits import FitSettings
from edge_models.head_weights import HeadWeights
from edge_models.local_settings import LocalSettings
from edge_models.local_training import SoftLabels, train_locally
from edge_models.samples import Samples
from edge_models.students import Student
from edge_models.students.arrays import arrays_of, with_arrays
from edge_protocol.task import TIERS, Tier

CPU = torch.device("cpu")
SMALLEST: Tier = "nano"
"""The common architecture of methods that share weights: the one that every device can run."""
DITTO = 0.1
"""How strongly a Ditto device's own student is pulled to the shared one; the paper tries 0.05 to 2."""
RAW = 64 * 64 * 3
"""Bytes of an image, for what `central` would send."""
Found = dict[str, Any]
"""``curve``: accuracy on the test after each round; ``right``: share of the students that are right, of each test image
at the end; ``sent``: bytes that a device sent up to the end of each round, a mean over devices; ``up``, ``down``: mean
bytes of a device in a round; ``once``: bytes that it fetches before the first; ``own``: by head (shared, personal,
chosen), each device's accuracy on its own test."""


def taught(
    strategy: str,
    world: World,
    setting: Setting,
    seed: int,
    *,
    pooled: bool = False,
    watch: Watch = lambda *_: None,
    keep: Callable[[Mapping[Tier, Student]], None] = lambda _: None,
    **settings: object,
) -> Found:
    """A server trains a student per tier, under a strategy's teacher or, without one, under labels.

    Args:
        strategy: the rule; "" for labels.
        world: everybody's images.
        setting: of the run.
        seed: of the partition and of everything else.
        pooled: whether the labels are everybody's, and not the server's alone.
        watch: is shown every round's ballots.
        keep: is shown the students after each round.
        settings: of the distillation, in place of the product's.
    """
    plan = msgspec.structs.replace(setting.distil(seed), strategy=strategy, **settings)
    students = {tier: first_student(tier, world.anchors, setting.distil(seed)) for tier in TIERS}
    trainings = {tier: Training(student, SPEC, CPU) for tier, student in students.items()}
    test, answers = inputs_of(world.test, SPEC), Answers(world, setting, seed, watch)
    beside = anchor_lesson(world.anchors, SPEC, weight=plan.anchor_weight, batch=plan.batch // 2)
    labels = Samples.concat(world.devices) if pooled else world.anchors
    labelled = anchor_lesson(labels, SPEC, weight=1.0, batch=plan.batch)
    raw = RAW * len(labels) / len(world.devices) if pooled else 0.0
    teach: Teach = teaching(strategy, answers, plan) if strategy else lambda *_: labelled
    curve, sent, fetched = list[float](), list[float](), Downlink(students, len(world.devices))
    for number in range(1, setting.rounds + 1):
        lesson = teach(students, number)
        round_plan = msgspec.structs.replace(plan, seed=seed + number)
        for tier in TIERS:
            pace = constant(plan.learning_rate)
            train(trainings[tier], [lesson, beside], round_plan, plan.steps, pace, progress=lambda *_: None)
            students[tier] = trainings[tier].average
        curve.append(float(np.mean([_accuracy(student, test, world.test) for student in students.values()])))
        sent.append(raw + sum(answers.bytes_up) / len(world.devices))
        fetched.release(students)
        keep(deepcopy(students))
    return {
        "curve": curve,
        "right": _right_of(students.values(), test, world.test),
        "sent": sent,
        "up": sent[-1] / setting.rounds,
        "down": float(np.mean(fetched.rounds)),
        "once": fetched.whole + (proxy_bytes(world, strategy) if strategy else 0),
        "own": owned(world, students, seed),
    }


def owned(world: World, students: Mapping[Tier, Student], seed: int) -> dict[str, list[float]]:
    """Each device's accuracy on its own test: shared head, personal head, and the one that it chooses itself."""
    found: dict[str, list[float]] = {"shared": [], "personal": [], "chosen": []}
    for at, (own, test) in enumerate(zip(world.devices, world.own_tests, strict=True)):
        student = students[TIERS[at % len(TIERS)]]
        shared = HeadWeights(*(student.head.state_dict()[name].numpy().copy() for name in ("weight", "bias")))
        features, logits = answer(student, inputs_of(test, SPEC))
        mine, _ = answer(student, inputs_of(own, SPEC))
        nothing, truth = np.zeros((len(own), 0), np.float32), own.targets.astype(np.int64)
        fit = fit_personal_head(mine, nothing, truth, shared, SPEC, FitSettings(seed=seed))
        accuracy = _right(logits, test)
        chosen = _right(fit.head.apply(features, np.zeros((len(test), 0), np.float32)), test)
        for name, value in (("shared", accuracy), ("chosen", chosen)):
            found[name].append(value)
        found["personal"].append(chosen if fit.chosen == "personal" else float("nan"))
    return found


def sharing(rule: str, world: World, setting: Setting, seed: int, *, ditto: float = 0.0) -> Found:
    """Devices share weights of the smallest architecture; a head that stays on its device is the personal one.

    Args:
        rule: of `WEIGHT_RULES`.
        world: everybody's images.
        setting: of the run.
        seed: of the partition and of everything else.
        ditto: strength of the pull on a second, personal student of each device; 0 for none.
    """
    shared = first_student(SMALLEST, world.anchors, setting.distil(seed))
    own = [shared] * len(world.devices)
    inputs = [inputs_of(samples, SPEC) for samples in world.devices]
    test, curve, up, so_far = inputs_of(world.test, SPEC), [], 0, list[float]()
    for number in range(1, setting.rounds + 1):
        fused = WEIGHT_RULES[rule](arrays_of(shared))
        for at in there(len(own), setting, seed, number):
            samples, local = world.devices[at], LocalSettings(seed=1000 * number + at, max_steps=setting.local_steps)
            start = shared if ditto else own[at]
            for phase in fused.phases(local):
                start = train_locally(start, inputs[at], samples.targets, SPEC, phase)
            sent = fused.part(arrays_of(start))
            fused.add(device_at(at), sent, len(samples))
            up += _bytes(sent)
            if ditto:
                pulled = msgspec.structs.replace(local, proximal=ditto)
                start = train_locally(own[at], inputs[at], samples.targets, SPEC, pulled, centre=shared)
            own[at] = start
        shared = with_arrays(shared, fused.result())
        own = own if ditto else [with_arrays(student, fused.result()) for student in own]
        curve.append(_accuracy(shared, test, world.test))
        so_far.append(up / len(own))
    return {
        "curve": curve,
        "right": _right_of([shared], test, world.test),
        "sent": so_far,
        "up": so_far[-1] / setting.rounds,
        "down": float(_bytes(fused.result())),
        "once": float(_bytes(fused.result())),
        "own": _each(world, [shared] * len(own), "shared") | _each(world, own, "chosen"),
    }


def alone(world: World, setting: Setting, seed: int) -> Found:
    """Each device trains a student of its tier on its own, as long as others train in all rounds."""
    starts = {tier: first_student(tier, world.anchors, setting.distil(seed)) for tier in TIERS}
    own = []
    for at, samples in enumerate(world.devices):
        epochs, most = LocalSettings().epochs * setting.rounds, setting.local_steps * setting.rounds
        settings = LocalSettings(seed=at, epochs=epochs, max_steps=most)
        start = starts[TIERS[at % len(TIERS)]]
        own.append(train_locally(start, inputs_of(samples, SPEC), samples.targets, SPEC, settings))
    test = inputs_of(world.test, SPEC)
    right = _right_of(own, test, world.test)
    return {
        "curve": [float(np.mean(right))],
        "right": right,
        "sent": [0.0],
        "up": 0.0,
        "down": 0.0,
        "once": Downlink(starts, len(own)).whole,
        "own": _each(world, own, "chosen"),
    }


def digesting(world: World, setting: Setting, seed: int) -> Found:
    """FedMD as published (Li and Wang 2019): devices' own students learn from the mean of their scores on the proxies.

    Then, in the same round, from its own samples. There is no shared model: its column is the mean of the devices'
    students, as with `alone`. Scores travel in half precision, both ways.
    """
    starts = {tier: first_student(tier, world.anchors, setting.distil(seed)) for tier in TIERS}
    own = [starts[TIERS[at % len(TIERS)]] for at in range(len(world.devices))]
    inputs, public = [inputs_of(samples, SPEC) for samples in world.devices], inputs_of(world.proxies, SPEC)
    test, size, curve, so_far = inputs_of(world.test, SPEC), 2.0 * len(public) * SPEC.outputs, [], [0.0]
    for number in range(1, setting.rounds + 1):
        present, fusion = there(len(own), setting, seed, number), Fusion()
        for at in present:
            fusion.add(opinion_of_logits(answer(own[at], public)[1], SPEC), 1.0)
        said = SoftLabels(public, fusion.result().value)
        for at in present:
            samples, local = world.devices[at], LocalSettings(seed=1000 * number + at, max_steps=setting.local_steps)
            none = (inputs[at][:0], samples.targets[:0])
            digested = train_locally(own[at], *none, SPEC, local, public=said)
            own[at] = train_locally(digested, inputs[at], samples.targets, SPEC, local)
        curve.append(float(np.mean([_accuracy(student, test, world.test) for student in own])))
        so_far.append(so_far[-1] + size * len(present) / len(own))
    once = Downlink(starts, len(own)).whole + proxy_bytes(world, "fedmd")
    return {
        "curve": curve,
        "right": _right_of(own, test, world.test),
        "sent": so_far[1:],
        "up": so_far[-1] / setting.rounds,
        "down": so_far[-1] / setting.rounds,
        "once": once,
        "own": _each(world, own, "chosen"),
    }


ARMS: Mapping[str, Callable[[World, Setting, int], Found]] = {
    "local": alone,
    "anchors": partial(taught, ""),
    "self": partial(taught, "self"),
    "mean": partial(taught, "mean"),
    "feddf": partial(taught, "feddf"),
    "dsfl": partial(taught, "dsfl"),
    "scarlet": partial(taught, "scarlet"),
    "fedmd": digesting,
    "fedproto": partial(taught, "fedproto"),
    "fedtgp": partial(taught, "fedtgp"),
    "feddistill": partial(taught, "feddistill"),
    "fedavg": partial(sharing, "fedavg"),
    "fedprox": partial(sharing, "fedprox"),
    "fedper": partial(sharing, "fedper"),
    "fedrep": partial(sharing, "fedrep"),
    "ditto": partial(sharing, "fedavg", ditto=DITTO),
    "central": partial(taught, "", pooled=True),
}


def _accuracy(student: Student, x: torch.Tensor, samples: Samples) -> float:
    return score(student, x, samples, SPEC)["accuracy"]


def _right(logits: np.ndarray[Any, np.dtype[np.float32]], samples: Samples) -> float:
    return float((logits.argmax(1) == samples.targets).mean())


def _each(world: World, students: Sequence[Student], head: str) -> dict[str, list[float]]:
    pairs = zip(students, world.own_tests, strict=True)
    return {head: [_accuracy(student, inputs_of(test, SPEC), test) for student, test in pairs]}


def _right_of(students: Iterable[Student], x: torch.Tensor, samples: Samples) -> list[float]:
    right = [answer(student, x)[1].argmax(1) == samples.targets for student in students]
    return [round(float(share), 4) for share in np.mean(right, axis=0)]


def _bytes(arrays: Mapping[str, np.ndarray[Any, np.dtype[np.generic]]]) -> int:
    return sum(value.nbytes for value in arrays.values())
