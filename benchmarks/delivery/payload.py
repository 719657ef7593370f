"""Bytes of a release as a share of the fp32 file, and the accuracy each way of sending it loses.

Two consecutive releases, really trained: a first one on the server's anchors, and one that a round of `feddistill` with
real images made of it. ``int8`` has one scale per output channel, fixed by the base, so that a delta stays possible;
devices take fp16 payloads only, so far. ``head`` keeps the base's trunk and refits its head on the labelled anchors.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from copy import deepcopy

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save
from torch.nn import functional

from benchmarks.harness import Options, Outcome, Target, run
from benchmarks.learning.answers import Setting
from benchmarks.learning.fleet import SPEC, World, deal_world, first_student
from benchmarks.learning.vehicle import load
from benchmarks.learning.vehicle_arms import taught
from broker_server.distiller import answer, inputs_of, score
from edge_models.samples import Samples
from edge_models.students import Student
from edge_protocol.delta import apply_delta, make_delta
from edge_protocol.task import TIERS, Tier
from export.fold import folded

MOST = 0.15
"""Of the fp32 file: the default delta."""
LOSES = 0.005
"""Of the accuracy: what is the default."""
Tensors = dict[str, npt.NDArray[np.generic]]
Write = Callable[[Mapping[str, npt.NDArray[np.float32]]], Tensors]


def measure(options: Options) -> Outcome:
    """Bytes of a release by each way of sending it. --quick only shows that it runs, and has no target."""
    torch.set_num_threads(1)
    begun = time.process_time()
    steps = (5, 10) if options.quick else (60, 150)
    setting = Setting(alpha=0.5, devices=6, rounds=1, steps=steps[0], first_steps=steps[1])
    world = deal_world(load()[0], devices=setting.devices, alpha=setting.alpha, seed=0)
    first = {tier: first_student(tier, world.anchors, setting.distil(0)) for tier in TIERS}
    kept: list[Mapping[Tier, Student]] = []
    taught("self" if options.quick else "feddistill", world, setting, 0, keep=kept.append)
    shares, lost = compare(world, first, kept[0])
    sys.stderr.write(f"{time.process_time() - begun:.0f} CPU s\n")
    rows: list[list[object]] = [["sent", *(f"{tier}, % of fp32" for tier in TIERS), "mean", "points lost, mean"]]
    for name, share in shares.items():
        mean, points = float(np.mean(list(share.values()))), 100 * float(np.mean(list(lost[name].values())))
        rows.append([name, *(round(100 * s, 1) for s in share.values()), round(100 * mean, 1), round(points, 2)])
    figures = {"share": shares, "accuracy_lost": lost, "steps": steps}
    default, points = (
        float(np.mean(list(shares["delta fp16"].values()))),
        float(np.mean(list(lost["full fp16"].values()))),
    )
    headline = f"default (fp16) delta: {100 * default:.1f} % of the fp32 file, {100 * points:.2f} points lost"
    if options.quick:
        return Outcome(f"{headline}; too short to judge", figures, rows=rows)
    targets = [Target("default delta, share of fp32", default, MOST), Target("accuracy lost", points, LOSES)]
    return Outcome(headline, figures, targets, rows)


def compare(
    world: World, base: Mapping[Tier, Student], new: Mapping[Tier, Student]
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Share of the fp32 file and accuracy lost, by way of sending and tier; every delta is applied and compared."""
    shares: dict[str, dict[str, float]] = {}
    lost: dict[str, dict[str, float]] = {}
    test, labelled = inputs_of(world.test, SPEC), Samples.concat([world.anchors, world.hidden])
    for tier in TIERS:
        student = folded(new[tier])
        reached = score(student, test, world.test, SPEC)["accuracy"]
        old, fresh = _floats(base[tier]), _floats(new[tier])
        scales = {name: _scale(values) for name, values in old.items()}
        ways: dict[str, tuple[bytes, Tensors, Mapping[str, npt.NDArray[np.float32]]]] = {}
        for name, write in (("fp16", _half), ("int8", _fixed(scales))):
            before, after = save(write(old)), write(fresh)
            ways[f"full {name}"] = ways[f"delta {name}"] = save(after), after, scales
            ways[f"delta {name}"] = _delta(before, save(after)), after, scales
        headed = _half(_floats(_other_head(base[tier], labelled)))
        ways["head only, delta fp16"] = _delta(save(_half(old)), save(headed)), headed, scales
        whole = len(save(fresh))
        for way, (sent, tensors, by) in ways.items():
            served = _loaded(student, tensors, by)
            shares.setdefault(way, {})[tier] = len(sent) / whole
            lost.setdefault(way, {})[tier] = reached - score(served, test, world.test, SPEC)["accuracy"]
    return shares, lost


def _floats(student: Student) -> dict[str, npt.NDArray[np.float32]]:
    return {name: tensor.numpy() for name, tensor in folded(student).state_dict().items()}


def _half(weights: Mapping[str, npt.NDArray[np.float32]]) -> Tensors:
    return {name: values.astype(np.float16) for name, values in weights.items()}


def _scale(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Per output channel; 1 for vectors, which stay fp16. A fifth of room for the releases to come."""
    if values.ndim < 2:
        return np.ones(1, np.float32)
    most = np.abs(values).max(axis=tuple(range(1, values.ndim)), keepdims=True)
    scale: npt.NDArray[np.float32] = (1.2 * np.maximum(most, 1e-8) / 127).astype(np.float32)
    return scale


def _fixed(scales: Mapping[str, npt.NDArray[np.float32]]) -> Write:
    def write(weights: Mapping[str, npt.NDArray[np.float32]]) -> Tensors:
        return {
            name: np.clip(np.round(values / scales[name]), -127, 127).astype(np.int8)
            if values.ndim > 1
            else values.astype(np.float16)
            for name, values in weights.items()
        }

    return write


def _delta(before: bytes, after: bytes) -> bytes:
    delta = make_delta(before, after)
    assert delta is not None
    assert apply_delta(before, delta) == after
    return delta


def _loaded(student: Student, tensors: Tensors, scales: Mapping[str, npt.NDArray[np.float32]]) -> Student:
    """The student with the weights that a device would have."""
    served = deepcopy(student)
    served.load_state_dict(
        {
            name: torch.from_numpy(values.astype(np.float32) * (scales[name] if values.dtype == np.int8 else 1))
            for name, values in tensors.items()
        }
    )
    return served


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
