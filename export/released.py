"""A release's student in PyTorch again: its architecture with the weights of a payload, batch norm folded."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edge_models.students import Student, build_student
from edge_models.students.arrays import with_arrays
from edge_protocol.errors import IncompatibleError
from edge_protocol.task import TaskSpec, Tier
from export.fold import folded


def released_student(tensors: Mapping[str, npt.NDArray[np.generic]], spec: TaskSpec, tier: Tier) -> Student:
    """The student of a tier with the weights that `devices.runners.payload.read_payload` read, in evaluation mode.

    Raises:
        ConfigError: the task names a student that there is none of.
        IncompatibleError: the payload is of another student, or of a variant, which is none of PyTorch's.
    """
    student = folded(build_student(spec, tier))
    if strange := sorted(set(tensors) ^ set(student.state_dict())):
        raise IncompatibleError(
            f"weights payload and student {spec.students[tier]!r} differ in {strange[0]!r}: it is another student's, "
            "or a variant's, which PyTorch neither answers with nor trains"
        )
    return with_arrays(student, tensors)
