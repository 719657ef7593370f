"""Bytes of a release as a share of the fp32 file, and the accuracy each way of sending it loses.

Consecutive releases, really trained with the product's settings: a first one on the server's anchors, then one after
each round of `feddistill` with real images. Payloads and deltas are the product's; the second and later keep the scales
of the one before. ``head only`` is a release whose trunk stays, with a head fitted on the labelled anchors.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy

import numpy as np
import torch
from safetensors.numpy import save
from torch.nn import functional

from benchmarks.harness import Options, Outcome, Target, run
from benchmarks.learning.answers import Setting
from benchmarks.learning.fleet import SPEC, World, deal_world, first_student
from benchmarks.learning.vehicle import load
from benchmarks.learning.vehicle_arms import taught
from broker_server.distil_job import DistilSettings
from broker_server.distiller import answer, inputs_of, score
from edge_models.samples import Samples
from edge_models.students import Student
from edge_protocol.delta import apply_delta, make_delta
from edge_protocol.task import TIERS, Tier
from export.fold import folded
from export.payload import Form, served, weights_payload
from export.template import build_template

MOST = 0.15
"""Of the fp32 file: the default delta."""
LOSES = 0.005
"""Of the accuracy: what is the default."""
FEW_BYTES = 4096
"""Of a release that changes the head alone."""
ROUNDS = 3
FORMS: tuple[Form, ...] = ("fp16", "int8")
HEAD = "head only, delta int8"
Found = dict[str, dict[Tier, list[float]]]
Releases = Sequence[Mapping[Tier, Student]]


def measure(options: Options) -> Outcome:
    """Bytes of a release by each way of sending it. --quick only shows that it runs, and has no target."""
    torch.set_num_threads(1)
    begun = time.process_time()
    plan = DistilSettings()
    steps = (5, 10) if options.quick else (plan.steps, plan.first_steps)
    rounds = 1 if options.quick else ROUNDS
    setting = Setting(alpha=0.5, devices=6, rounds=rounds, steps=steps[0], first_steps=steps[1])
    world = deal_world(load()[0], devices=setting.devices, alpha=setting.alpha, seed=0)
    releases: list[Mapping[Tier, Student]] = [
        {tier: first_student(tier, world.anchors, setting.distil(0)) for tier in TIERS}
    ]
    taught("self" if options.quick else "feddistill", world, setting, 0, keep=releases.append)
    sent, lost = compare(world, releases)
    sys.stderr.write(f"{time.process_time() - begun:.0f} CPU s\n")
    whole = sent["full fp32"]
    share = {way: {tier: _mean(n) / _mean(whole[tier]) for tier, n in found.items()} for way, found in sent.items()}
    rows: list[list[object]] = [["sent", *(f"{tier}, % of fp32" for tier in TIERS), "mean", "points lost", "worst"]]
    for way, found in share.items():
        points = [100 * one for each in lost[way].values() for one in each]
        percent = [100 * one for one in found.values()]
        rows.append([way, *(round(p, 1) for p in percent), *(round(v, 2) for v in _summary(percent, points))])
    figures = {"bytes": sent, "share": share, "accuracy_lost": lost, "steps": steps, "rounds": rounds}
    delta = _mean(list(share["delta int8"].values()))
    loses = _mean([one for each in lost["delta int8"].values() for one in each])
    head = max(one for each in sent[HEAD].values() for one in each)
    headline = f"default (int8) delta: {100 * delta:.1f} % of the fp32 file, {100 * loses:.2f} points lost"
    headline = f"{headline}; head only: at most {head:.0f} bytes"
    if options.quick:
        return Outcome(f"{headline}; too short to judge", figures, rows=rows)
    targets = [
        Target("default delta, share of fp32", delta, MOST),
        Target("accuracy lost", loses, LOSES),
        Target("head only, bytes", head, FEW_BYTES),
    ]
    return Outcome(headline, figures, targets, rows)


def compare(world: World, releases: Releases) -> tuple[Found, Found]:
    """Bytes and accuracy lost, by way of sending, tier and release; every delta is applied and compared."""
    sent, lost = Found(), Found()
    test, labelled = inputs_of(world.test, SPEC), Samples.concat([world.anchors, world.hidden])

    def keep(way: str, tier: Tier, size: int, points: float) -> None:
        sent.setdefault(way, {}).setdefault(tier, []).append(size)
        lost.setdefault(way, {}).setdefault(tier, []).append(points)

    def accuracy(student: Student) -> float:
        return score(student, test, world.test, SPEC)["accuracy"]

    for tier in TIERS:
        template = build_template(releases[0][tier], SPEC.input.shape)
        base = {form: weights_payload(releases[0][tier], template, form=form) for form in FORMS}
        for release in releases[1:]:
            student = release[tier]
            reached = accuracy(student)
            keep("full fp32", tier, len(_whole(student)), reached - accuracy(folded(student)))
            for form in FORMS:
                made = weights_payload(student, template, form=form, base=base[form])
                points = reached - accuracy(served(student, made))
                keep(f"full {form}", tier, len(made), points)
                keep(f"delta {form}", tier, len(_delta(base[form], made)), points)
                base[form] = made
            headed = _other_head(student, labelled)
            made = weights_payload(headed, template, base=base["int8"])
            keep(HEAD, tier, len(_delta(base["int8"], made)), accuracy(headed) - accuracy(served(headed, made)))
    return sent, lost


def _summary(percent: Sequence[float], points: Sequence[float]) -> tuple[float, float, float]:
    return _mean(percent), _mean(points), max(points)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _whole(student: Student) -> bytes:
    return save({name: tensor.numpy() for name, tensor in folded(student).state_dict().items()})


def _delta(before: bytes, after: bytes) -> bytes:
    delta = make_delta(before, after)
    assert delta is not None
    assert apply_delta(before, delta) == after
    return delta


def _other_head(student: Student, labelled: Samples) -> Student:
    """The same trunk with a head fitted on labelled samples, from where it was."""
    other, targets = deepcopy(student), torch.from_numpy(labelled.targets.astype(np.int64))
    features = torch.from_numpy(answer(student, inputs_of(labelled, SPEC))[0])
    solver = torch.optim.LBFGS(other.head.parameters(), max_iter=50)

    def loss() -> torch.Tensor:
        solver.zero_grad()
        found = functional.cross_entropy(other.head(features), targets)
        found.backward()  # type: ignore[no-untyped-call]
        return found

    solver.step(loss)  # type: ignore[no-untyped-call]
    return other


if __name__ == "__main__":
    raise SystemExit(run(measure))
