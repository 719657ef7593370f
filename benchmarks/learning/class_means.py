"""A fleet that tells class means and answers no sample: its reports, as the product makes and weighs them.

Owns neither a rule nor a course; `no_proxy` and `vehicle` share it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from benchmarks.learning.answers import device_at
from benchmarks.learning.fleet import SPEC, World
from broker_server.distiller import answer, inputs_of
from broker_server.strategies.prototype_teacher import PrototypeTeacher, Space
from edge_client.trainer import class_means
from edge_models.prototypes import class_prototypes
from edge_models.samples import Samples
from edge_models.students import Student
from edge_protocol import messages as m
from edge_protocol.codec import encode
from edge_protocol.prototypes import told_arrays
from edge_protocol.task import TIERS, Tier

K = 10
"""Least samples behind a class mean: what ``docs/operations.md`` shows."""
Students = Mapping[Tier, Student]


def report(own: Samples, tier: Tier, student: Student, number: int) -> m.PrototypeReport:
    """What a device tells, as its training subprocess and its report make it."""
    told = class_means(SPEC, own, answer(student, inputs_of(own, SPEC))[0], K)
    return m.PrototypeReport(SPEC.name, SPEC.label_space, number, number, tier, *told_arrays(**told))  # type: ignore[arg-type]


def heard(world: World, students: Students, number: int, teacher: PrototypeTeacher, places: Sequence[int]) -> list[int]:
    """Tell a teacher the class means of the devices at these places; return the bytes of each message."""
    sizes = []
    for at in places:
        tier = TIERS[at % len(TIERS)]
        told = report(world.devices[at], tier, students[tier], number)
        header = m.Header("roadside", device_at(at), bytes(16), bytes(8), number, 1.79e9, clock_trusted=True)
        sizes.append(len(encode(header, told)))
        teacher.hear(device_at(at), told, 0)
    return sizes


def spaces(students: Students, x: torch.Tensor, anchors: Samples) -> dict[Tier, Space]:
    """Each tier's feature space: of the samples asked about, and of labelled anchors."""
    return {tier: _space(student, x, anchors) for tier, student in students.items()}


def _space(student: Student, x: torch.Tensor, anchors: Samples) -> Space:
    labels = anchors.targets.astype(np.int64)
    own = class_prototypes(answer(student, inputs_of(anchors, SPEC))[0], labels, SPEC.outputs, k=1)
    return Space(answer(student, x)[0], own)
