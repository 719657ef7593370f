"""A student's weights as plain arrays, for the sharing of weights and its bytes; owns no rule and no file."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import numpy as np
import numpy.typing as npt
import torch

from edge_models.students.base import Student
from edge_protocol.errors import IncompatibleError


def arrays_of(student: Student) -> dict[str, npt.NDArray[np.generic]]:
    """Copy of every weight and batch statistic, by its name in the state dict; ``head.*`` is the head."""
    return {name: value.detach().cpu().numpy().copy() for name, value in student.state_dict().items()}


def with_arrays(student: Student, arrays: Mapping[str, npt.NDArray[np.generic]]) -> Student:
    """Copy of a student with some or all of its weights replaced, in evaluation mode; the student stays as it is.

    Raises:
        IncompatibleError: a name or a shape that this student does not have.
    """
    copy = deepcopy(student)
    state = copy.state_dict()
    for name, value in arrays.items():
        if name not in state or tuple(state[name].shape) != value.shape:
            raise IncompatibleError(f"this student has no {name!r} of shape {value.shape}; was it another tier's?")
        state[name].copy_(torch.tensor(value))
    return copy.eval()
