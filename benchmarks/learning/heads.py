"""Which head should serve a camera: each type of personal head, its own choice, the shared head, or no fleet at all.

Twelve cameras as in `vehicle`, each judged on held-out vehicles in its own classes and conditions. The shared model is
the one that a fleet begins with, trained on the server's anchors; the better it gets, the less is left to a head.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.harness import Options, Outcome, Own, Target, run, spread
from benchmarks.learning.answers import Setting
from benchmarks.learning.fleet import SPEC, World, deal_world, first_student
from benchmarks.learning.vehicle import load
from broker_server.distil_job import DistilSettings
from broker_server.distiller import answer, inputs_of
from edge_client.config import PersonalConfig
from edge_models.fit import fit_personal_head
from edge_models.head_fits import FITS, FitSettings, no_tick
from edge_models.head_weights import HeadType, HeadWeights
from edge_models.samples import F4
from edge_models.students import Student
from edge_models.students.arrays import arrays_of
from edge_protocol.task import TIERS

ALPHA, DEVICES = Setting.alpha, Setting.devices
TYPES: tuple[HeadType, ...] = ("bias", "linear", "mlp", "adapter")
DEFAULT = PersonalConfig().heads
Scores = dict[str, float]


def measured(options: Options, *, seeds: int) -> Outcome:
    """Judge every head on every camera; --quick trains a twentieth for one seed, and has no target."""
    torch.set_num_threads(1)
    pack = load()[0]
    steps, local, seeds = (20, 5, 1) if options.quick else (400, 100, seeds)
    worlds: list[dict[str, list[float]]] = []
    for seed in range(seeds):
        begun = time.process_time()
        world = deal_world(pack, devices=DEVICES, alpha=ALPHA, seed=seed)
        settings = DistilSettings(first_steps=steps, seed=seed)
        students = {tier: first_student(tier, world.anchors, settings) for tier in TIERS}
        found = [_judge(world, at, students[TIERS[at % len(TIERS)]], local, seed) for at in range(DEVICES)]
        worlds.append({name: [scores[name] for scores in found] for name in found[0]})
        sys.stderr.write(f"seed {seed}: {time.process_time() - begun:.0f} CPU s\n")
    means = {name: [float(np.mean(world[name])) for world in worlds] for name in worlds[0]}
    worst = {name: [min(world[name]) for world in worlds] for name in worlds[0]}
    rows: list[list[object]] = [["head", "accuracy, mean over devices", "worst device"]]
    rows += [[name, str(spread(means[name])), str(spread(worst[name]))] for name in means]
    setting = f"vehicle, {DEVICES} cameras, Dirichlet {ALPHA}, {seeds} seeds"
    figures = {"accuracy": worlds, "steps": steps}
    if options.quick:
        return Outcome(f"{setting}, {steps} steps: every head was fitted; too short to judge", figures, rows=rows)
    ours = f"chosen: {', '.join(DEFAULT)}"
    gains = {rival: spread(_minus(means[ours], means[rival])) for rival in means if rival != ours}
    headline = (
        f"{setting}: the default choice gains {gains['shared']} on the shared head, {gains['local only']} on none"
    )
    targets = [
        *(Target(f"gain on {rival}", gains[rival].median, 0.0, at_most=False) for rival in ("shared", "local only")),
        Target(
            "gain of the worst device on shared",
            spread(_minus(worst[ours], worst["shared"])).median,
            0.0,
            at_most=False,
        ),
    ]
    return Outcome(headline, figures | {"gains": gains}, targets, rows)


def _judge(world: World, at: int, student: Student, local: int, seed: int) -> Scores:
    """Accuracy of every head on one camera's own test."""
    own, test = world.devices[at], world.own_tests[at]
    features, shared = answer(student, inputs_of(own, SPEC))[0], shared_head(student)
    asked = answer(student, inputs_of(test, SPEC))[0]
    settings = FitSettings(seed=seed)
    heads: dict[str, HeadWeights] = {"shared": shared}
    targets = own.targets.astype(np.int64)
    heads |= {f"{kind} always": FITS[kind](features, targets, shared, settings, no_tick) for kind in TYPES}
    for kinds in dict.fromkeys((DEFAULT, TYPES)):
        allowed = FitSettings(heads=kinds, seed=seed)
        heads[f"chosen: {', '.join(kinds)}"] = fit_personal_head(
            features, own.side, targets, shared, SPEC, allowed
        ).head
    alone = first_student(TIERS[at % len(TIERS)], own, DistilSettings(first_steps=local, seed=seed))
    said: dict[str, F4] = {name: head.apply(asked) for name, head in heads.items()}
    said["local only"] = answer(alone, inputs_of(test, SPEC))[1]
    return {name: float((logits.argmax(1) == test.targets).mean()) for name, logits in said.items()}


def shared_head(student: Student) -> HeadWeights:
    """The head of a student."""
    state = arrays_of(student)
    weight, bias = (np.asarray(state[f"head.{name}"], np.float32) for name in ("weight", "bias"))
    return HeadWeights(weight, bias)


def _minus(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(ours, theirs, strict=True)]


if __name__ == "__main__":
    raise SystemExit(run(measured, seeds=Own(3, "how many")))
