"""The weights payload: the tensors that a template names, as safetensors in fp16; owns no file."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from edge_models.students import Student
from edge_protocol.errors import ExportError
from export.fold import folded
from export.graph import weight_shapes


def weights_payload(student: Student, template: bytes) -> bytes:
    """Write a student's weights down for a template, rounded to fp16.

    Raises:
        ExportError: the template is another student's, or a weight is NaN or too large for fp16.
    """
    tensors = {name: tensor.numpy() for name, tensor in folded(student).state_dict().items()}
    needed = weight_shapes(template)
    wrong = sorted(set(needed.items()) ^ {(name, array.shape) for name, array in tensors.items()})
    if wrong:
        raise ExportError(f"template and student differ in {wrong[0][0]!r}: build the template from this student")
    return save({name: _rounded(name, tensors[name]) for name in needed})


def _rounded(name: str, array: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    largest = np.finfo(np.float16).max
    if not np.isfinite(array).all() or np.abs(array).max(initial=0) > largest:
        raise ExportError(
            f"weight {name!r} holds NaN, infinity or a value above {largest:g}: training diverged; lower its rate"
        )
    return array.astype(np.float16)
