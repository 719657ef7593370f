"""One tier's files in one call: template, weights payload, golden answers, after the parity gate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from devices.runners.ort_runner import OrtRunner
from edge_models.students import Student
from edge_protocol.errors import ExportError
from edge_protocol.task import TaskSpec, Tier
from export.golden import SAMPLES, make_golden
from export.parity import ParityReport, check_parity
from export.payload import Form, weights_payload
from export.template import build_template


@dataclass(frozen=True)
class BuiltArtifact:
    """What a device of one tier needs.

    Attributes:
        template: ONNX graph without weights; the same bytes for every release of the same student.
        weights: payload of tensors, named as the template names them.
        golden: safetensors of ``inputs`` and the ``features`` and ``logits`` they must give.
        parameters: number of weights.
        parity: what the gate measured.
    """

    template: bytes
    weights: bytes
    golden: bytes
    parameters: int
    parity: ParityReport


def build_artifact(
    spec: TaskSpec,
    tier: Tier,
    student: Student,
    x: npt.ArrayLike,
    *,
    template: bytes | None = None,
    form: Form = "int8",
    base: bytes = b"",
) -> BuiltArtifact:
    """Export a student and check what was exported.

    Args:
        spec: the task.
        tier: for messages.
        student: in any mode; not changed.
        x: (N, *input shape) float32, one or more preprocessed samples of the task.
        template: from an earlier build of the same student; saves seconds.
        form: of the payload's numbers.
        base: as for `weights_payload`.

    Raises:
        ExportError: it cannot be exported, or `x` has another shape.
        ParityError: the exported files answer differently from the student.
    """
    inputs = np.asarray(x, np.float32)
    if inputs.shape[1:] != spec.input.shape or not len(inputs):
        raise ExportError(
            f"task {spec.name!r}, tier {tier!r}: sample inputs are {inputs.shape}, not (N, *{spec.input.shape})"
        )
    template = template or build_template(student, spec.input.shape)
    weights = weights_payload(student, template, form=form, base=base)
    parity = check_parity(student, template, weights, inputs)
    with OrtRunner(template, weights) as runner:
        golden = make_golden(runner, np.resize(inputs, (SAMPLES, *spec.input.shape)))
    return BuiltArtifact(template, weights, golden, sum(p.numel() for p in student.parameters()), parity)
