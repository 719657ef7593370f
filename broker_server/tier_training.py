"""One tier's share of a round: the training goes on from the last round, from a checkpoint, or from shared trunks.

Owns where training begins and when it is written down; the steps are `distiller`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import torch

from broker_server.bench import Bench
from broker_server.candidate_files import load_tensors, released_payload, save_tensors
from broker_server.distiller import constant, cycled, train
from broker_server.training import Lesson, Training, compute_device
from broker_server.trunks import Fused, fuse, load_drift
from edge_models.students import build_student
from edge_models.trunk_changes import length
from edge_protocol.errors import DistillationError
from edge_protocol.ids import DeviceId
from edge_protocol.task import TIERS, Tier
from edge_protocol.trunks import TrunkChange
from export.fold import add_folded

Say = Callable[[Mapping[str, object]], None]


def share_trunks(
    bench: Bench, changes: Mapping[DeviceId, TrunkChange], say: Say
) -> tuple[dict[Tier, Fused], dict[str, str]]:
    """Fuse what the devices of a job sent, as `fuse`; nothing where the job does not ask for it."""
    job = bench.job
    if job.trunk is None or job.current is None or not changes:
        return {}, {}
    found = {tier: load_drift(Path(job.current) / f"{tier}.drift.safetensors") for tier in TIERS}
    drifts = {tier: drift for tier, drift in found.items() if drift is not None}
    fused, told = fuse(changes, {tier: released_payload(job.current, tier) for tier in TIERS}, drifts, job.trunk)
    for tier, each in fused.items():
        say({"stage": "trunks", "tier": tier, "devices": each.devices, "length": round(length(each.change), 5)})
    return fused, told


def teach(tier: Tier, bench: Bench, lessons: Sequence[Lesson], say: Say, fused: Fused | None = None) -> Training:
    """Train a tier from where its last round, or a killed worker, left it.

    Args:
        tier: which.
        bench: of the job.
        lessons: what it is taught.
        say: is told of the progress.
        fused: what the tier's devices agree on about its trunk: where this round's training begins.
    """
    plan, first = bench.job.settings, not bench.current
    settings = msgspec.structs.replace(plan, seed=plan.seed + bench.job.round)  # each round in another order
    steps = plan.first_steps if first else plan.steps
    pace = cycled(plan.first_learning_rate, steps) if first else constant(plan.learning_rate)
    checkpoint = bench.folder / "checkpoint" / f"{tier}.safetensors"
    training, done = _resumed(checkpoint, bench, tier, compute_device(plan.device))
    if fused is not None and not done:
        for student in (training.pupil, training.average):
            add_folded(student, fused.change)

    def progress(taken: int, loss: float) -> None:
        say({"stage": "train", "tier": tier, "step": taken, "steps": steps, "loss": round(loss, 5)})
        save_tensors(checkpoint, training.tensors() | {"done": torch.tensor(taken)})

    train(training, lessons, settings, steps, pace, done=done, progress=progress)
    return training


def _resumed(checkpoint: Path, bench: Bench, tier: Tier, device: torch.device) -> tuple[Training, int]:
    """The training to go on with, and how many steps of this round it has behind it."""
    if checkpoint.exists():
        try:
            tensors = load_tensors(checkpoint)
            return Training.restored(tensors, bench.spec, tier, device), int(tensors["done"])
        except (DistillationError, KeyError):
            checkpoint.unlink()  # a power cut left half of it: this round's steps are taken again
    if not bench.current or bench.job.current is None:
        return Training(build_student(bench.spec, tier, bench.job.settings.seed), bench.spec, device), 0
    kept = Path(bench.job.current) / f"{tier}.training.safetensors"
    if kept.exists():
        return Training.restored(load_tensors(kept), bench.spec, tier, device), 0
    return Training(bench.current[tier], bench.spec, device), 0
