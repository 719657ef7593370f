"""Trains a release's trunk on a device's own samples and says how it changed; runs in the training subprocess only.

The shared head stays as it is while the trunk learns, so that no head leaves its device and the change fits the head
that everybody starts with. Batch norm is folded into the weights of a release; what changes is what devices have.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from devices.runners.payload import read_payload
from edge_client.disk import write_atomic
from edge_client.jobs import TRUNK, TrainJob
from edge_models.head_fits import Tick, no_tick
from edge_models.local_settings import LocalSettings
from edge_models.local_training import train_locally
from edge_models.samples import Samples
from edge_models.students import Student
from edge_models.students.arrays import arrays_of
from edge_models.trunk_changes import F4, Change, clipped, encode_change, length, trunk_of
from edge_protocol.errors import RoadcastError
from edge_protocol.task import TaskSpec
from edge_protocol.trunks import TrunkAsk, TrunkChange
from export.released import released_student

MAX_INPUT_BYTES = 64 << 20
"""Prepared samples that a trunk is trained on take at most this; of more, every so-many-th is left out."""
Prepare = Callable[[npt.NDArray[Any]], F4]


def leave_change(
    folder: Path, job: TrainJob, weights: bytes, samples: Samples, prepare: Prepare, tick: Tick = no_tick
) -> str:
    """Train the trunk as the job asks and leave its change in the job's folder.

    Args:
        folder: of the job.
        job: with `trunk` set.
        weights: the release's payload.
        samples: of the replay store; those without a label or target are left out.
        prepare: stored samples to what the student takes.
        tick: called after every step.

    Returns:
        "", or why there is no change: it costs the round nothing else.
    """
    if job.trunk is None:
        return ""
    known = samples.take(samples.labelled)
    if not len(known):
        return "no sample has a label or a target to train the trunk on"
    every = -(-4 * prod(job.spec.input.shape) * len(known) // MAX_INPUT_BYTES)
    known = known.take(np.arange(0, len(known), every))
    try:
        student = released_student(read_payload(weights), job.spec, job.tier)
        change = trunk_change(student, prepare(known.raw), known.targets, job.spec, job.trunk, job.seed, tick)
        if not length(change):
            return "training changed nothing"
        told = TrunkChange(sha256(weights).hexdigest(), job.trunk.steps, encode_change(change))
        write_atomic(folder / TRUNK, msgspec.msgpack.encode(told))
    except (RoadcastError, RuntimeError, MemoryError) as error:  # torch's own are RuntimeErrors
        return f"{type(error).__name__}: {error}"[:400]
    return ""


def trunk_change(
    student: Student,
    x: F4,
    targets: npt.NDArray[np.generic],
    spec: TaskSpec,
    ask: TrunkAsk,
    seed: int,
    tick: Tick = no_tick,
) -> Change:
    """What own samples change in a trunk, cut to the length that was asked for; the same arguments, the same change.

    Args:
        student: as released; not changed.
        x: (N, *shape) float32, as the student takes it.
        targets: (N,) int64, -1 unlabelled; or (N, H) float32, NaN missing.
        spec: the task.
        ask: how.
        seed: of everything random.
        tick: called after every step.

    Raises:
        DataError: inputs hold NaN or infinity, or a label is none of the task's.
    """
    settings = LocalSettings(
        epochs=ask.steps,
        max_steps=ask.steps,
        batch=ask.batch,
        learning_rate=ask.learning_rate,
        weight_decay=0.0,
        frozen="head",
        seed=seed,
    )
    trained = train_locally(student, torch.from_numpy(x), targets, spec, settings, tick=tick)
    before, after = trunk_of(arrays_of(student)), trunk_of(arrays_of(trained))
    return clipped({name: after[name] - value for name, value in before.items()}, ask.norm * length(before))
