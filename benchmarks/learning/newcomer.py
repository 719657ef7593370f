"""What should a newcomer with a few labelled samples serve: the shared head, a head of devices like it, or its own?

Each of the cameras of `heads` joins in turn. A server never sees heads, so it makes one for a cluster of devices out of
their reports: what they and the shared model say of the proxies, under the classes that they hold, teaches a head on
the newcomer's trunk. The newcomer takes the head under which its samples are likeliest. That is measured only: no
product code hands out clusters' heads (ADR-0034).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.harness import Options, Outcome, Own, Target, run, spread
from benchmarks.learning.answers import Setting
from benchmarks.learning.fleet import F4, F8, I8, SPEC, World, deal_world, first_student, odds_of, views
from benchmarks.learning.heads import shared_head
from benchmarks.learning.vehicle import load
from broker_server.distil_job import DistilSettings
from broker_server.distiller import answer, inputs_of, opinion_of_logits
from broker_server.strategies.ratios import blocks
from edge_client.trainer import PROXY_VIEWS
from edge_models.fit import fit_personal_head
from edge_models.head_fits import FitSettings, fit_bias, fit_linear
from edge_models.head_weights import HeadWeights
from edge_models.students import Student
from edge_protocol.task import TIERS, Tier
from edge_protocol.votes import ClassVotes, class_votes

SHARED, NEAREST, BEST, FROM_IT = (
    "shared",
    "nearest cluster's",
    "best cluster's, told by the test",
    "linear from nearest",
)
LINEAR, BIAS, CHOSEN = "linear from shared", "biases of shared", "chosen, the default"
CLUSTERS, DRAWN, RESTARTS, PASSES = 5, 2000, 10, 30
"""Clusters of the other devices; samples that a cluster's head is fitted on; beginnings and passes of k-means."""
Found = dict[int, dict[str, list[float]]]
"""Accuracy of each newcomer, by labelled samples and head."""


@dataclass(frozen=True)
class Plan:
    """Devices, steps of the shared model, and with how many labelled samples a newcomer comes."""

    devices: int = Setting.devices
    steps: int = 400
    counts: Sequence[int] = (1, 4, 8, 16, 32, 100)
    judged: int = 8


@dataclass(frozen=True, eq=False)
class Fleet:
    """A world, its students, and what every device reported: rounded to levels, as it travels."""

    world: World
    students: Mapping[Tier, Student]
    proxies: Mapping[Tier, F4]
    said: Sequence[ClassVotes]

    @classmethod
    def of(cls, world: World, settings: DistilSettings) -> Fleet:
        """Train the first students, and ask every device once."""
        students = {tier: first_student(tier, world.anchors, settings) for tier in TIERS}
        x = inputs_of(world.proxies, SPEC)
        theirs = {tier: views(student, x, PROXY_VIEWS, 1) for tier, student in students.items()}
        said = []
        for at, own in enumerate(world.devices):
            tier = tier_of(at)
            said.append(class_votes(*odds_of(own, students[tier], theirs[tier], number=1, at=at)))
        return cls(world, students, {tier: seen[0] for tier, seen in theirs.items()}, said)

    def cluster_heads(self, newcomer: int, rng: np.random.Generator) -> list[HeadWeights]:
        """A head for each cluster of the other devices, on the newcomer's trunk."""
        others = [said for at, said in enumerate(self.said) if at != newcomer]
        held = np.stack([np.frombuffer(said.held.data, np.uint8) for said in others]).astype(np.float32)
        features, shared = self.proxies[tier_of(newcomer)], shared_head(self.students[tier_of(newcomer)])
        ours = opinion_of_logits(shared.apply(features), SPEC).value
        heads = []
        for members in clusters(held, min(CLUSTERS, len(others) - 1), rng):
            mine = held * members[:, None]
            share = mine.sum(0)
            weights = (mine / np.maximum(share, 1)).astype(np.float32)
            theirs = sum(block.weighted(weights[block.devices]) for block in blocks(others))
            joint = (theirs + ours / ours.mean(0)) * share
            drawn = rng.choice(joint.size, DRAWN, p=(joint / joint.sum(dtype=np.float64)).ravel().astype(np.float64))
            rows, labels = np.divmod(drawn, len(SPEC.labels))
            heads.append(fit_linear(features[rows], labels, shared, FitSettings()))
        return heads


def tier_of(at: int) -> Tier:
    """The tier of the device at a place of the fleet."""
    return TIERS[at % len(TIERS)]


def clusters(points: F4, count: int, rng: np.random.Generator) -> list[F4]:
    """Who belongs to each cluster, (n,) float32 of 0 and 1: the best of some runs of k-means (Lloyd 1982)."""
    best, least = np.zeros(len(points), np.int64), np.inf
    for _ in range(RESTARTS):
        centres = points[rng.choice(len(points), count, replace=False)]
        for _ in range(PASSES):
            far = ((points[:, None] - centres) ** 2).sum(2)
            mine = far.argmin(1)
            centres = np.stack(
                [points[mine == at].mean(0) if (mine == at).any() else centres[at] for at in range(count)]
            )
        if far.min(1).sum() < least:
            best, least = mine, float(far.min(1).sum())
    return [(best == at).astype(np.float32) for at in np.unique(best)]


def joined(fleet: Fleet, newcomer: int, plan: Plan, seed: int) -> Found:
    """Judge every head on a newcomer's own test, with more and more of its samples labelled."""
    student, own = fleet.students[tier_of(newcomer)], fleet.world.devices[newcomer]
    rng = np.random.default_rng([seed, newcomer])
    shared, theirs = shared_head(student), fleet.cluster_heads(newcomer, rng)
    order = rng.permutation(len(own))
    features = answer(student, inputs_of(own, SPEC))[0][order]
    labels = own.targets.astype(np.int64)[order]
    test = fleet.world.own_tests[newcomer]
    asked = answer(student, inputs_of(test, SPEC))[0]

    def right(head: HeadWeights) -> float:
        return float((head.apply(asked).argmax(1) == test.targets).mean())

    best = max(right(head) for head in theirs)
    found: Found = {}
    for count in plan.counts:
        heads = heads_of(features[:count], labels[:count], shared, theirs)
        found[count] = {name: [right(head)] for name, head in heads.items()} | {BEST: [best]}
    return found


def heads_of(features: F4, labels: I8, shared: HeadWeights, theirs: Sequence[HeadWeights]) -> dict[str, HeadWeights]:
    """Every head that a newcomer may serve, out of its labelled samples."""
    settings = FitSettings()
    nearest = min(theirs, key=lambda head: loss(head, features, labels))
    side = np.zeros((len(labels), 0), np.float32)
    return {
        SHARED: shared,
        NEAREST: nearest,
        FROM_IT: fit_linear(features, labels, nearest, settings),
        LINEAR: fit_linear(features, labels, shared, settings),
        BIAS: fit_bias(features, labels, shared, settings),
        CHOSEN: fit_personal_head(features, side, labels, shared, SPEC, settings).head,
    }


def loss(head: HeadWeights, features: F4, labels: I8) -> float:
    """Mean cross-entropy (nats)."""
    logits = torch.from_numpy(head.apply(features))
    return float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)))


def measured(options: Options, *, seeds: int, alpha: float) -> Outcome:
    """Let every camera join in turn; --quick takes four, a twentieth of the steps and one seed, and has no target."""
    torch.set_num_threads(1)
    plan, seeds = (Plan(devices=4, steps=20, counts=(4, 8)), 1) if options.quick else (Plan(), seeds)
    found: list[Found] = []
    for seed in range(seeds):
        begun = time.process_time()
        world = deal_world(load()[0], devices=plan.devices, alpha=alpha, seed=seed)
        fleet = Fleet.of(world, DistilSettings(first_steps=plan.steps, seed=seed))
        found.append(merged([joined(fleet, at, plan, seed) for at in range(plan.devices)]))
        sys.stderr.write(f"seed {seed}: {time.process_time() - begun:.0f} CPU s\n")
    told = f"vehicle, {plan.devices} cameras, Dirichlet {alpha:g}, {seeds} seeds, {plan.judged} labelled samples"
    gains = {rival: gain(found, plan.judged, rival, np.mean) for rival in (SHARED, NEAREST, FROM_IT, BEST)}
    worst = gain(found, plan.judged, SHARED, np.min)
    figures = {"accuracy": found, "gains": gains, "worst": worst, "steps": plan.steps}
    targets = [
        Target("points on the shared head", gains[SHARED], 5.0, at_most=False),
        Target("points of the worst camera on the shared head", worst, 0.0, at_most=False),
        Target("points on a head that starts from the nearest cluster's", gains[FROM_IT], 0.0, at_most=False),
    ]
    headline = (
        f"{told}: the default choice gives {gains[SHARED]:+.1f} points on the shared head, "
        f"{gains[NEAREST]:+.1f} on the nearest cluster's, {gains[FROM_IT]:+.1f} on a head that starts there"
    )
    return Outcome(headline, figures, () if options.quick else targets, rows_of(found, plan))


def merged(devices: Sequence[Found]) -> Found:
    """Accuracies of all newcomers, one after another."""
    return {
        count: {name: [each[count][name][0] for each in devices] for name in heads}
        for count, heads in devices[0].items()
    }


def gain(found: Sequence[Found], count: int, rival: str, over: object) -> float:
    """Median over seeds of what the default choice has on a rival, in points, of the mean or of the worst device."""
    assert callable(over)
    pairs = [(each[count][CHOSEN], each[count][rival]) for each in found]
    return 100 * spread([float(over(ours)) - float(over(theirs)) for ours, theirs in pairs]).median


def rows_of(found: Sequence[Found], plan: Plan) -> list[list[object]]:
    """Accuracy, mean and worst device, of every head at every number of labelled samples; means over seeds."""
    rows: list[list[object]] = [["head", *(f"{count} labelled, %" for count in plan.counts)]]
    for name in found[0][plan.counts[0]]:
        cells: list[F8] = [np.array([each[count][name] for each in found]) for count in plan.counts]
        rows.append([name, *(f"{100 * cell.mean():.1f}, {100 * cell.min(1).mean():.1f}" for cell in cells)])
    return rows


if __name__ == "__main__":
    raise SystemExit(run(measured, seeds=Own(3, "how many"), alpha=Own(Setting.alpha, "Dirichlet concentration")))
