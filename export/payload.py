"""The weights payload: the tensors that a template names, as safetensors in INT8 steps or in fp16; owns no file.

A weight of two or more axes is whole steps of ``<name>:scale``, one scale an output channel; biases and the head, which
personal heads begin with, are fp16. Scales stay those of the payload before, for as long as they fit: only then is the
difference of two releases small (ADR-0026).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from edge_models.students import Student
from edge_protocol.errors import ExportError
from edge_protocol.manifest import SCALE
from export.fold import folded
from export.graph import weight_shapes

Form = Literal["int8", "fp16"]
STEPS = 127
"""Largest number of steps, either way."""
ROOM = 4.0
"""How much a channel may grow before it needs a new scale; so many times fewer steps it begins with (ADR-0026)."""
F4 = npt.NDArray[np.float32]
_HEAD = "head."


def weights_payload(student: Student, template: bytes, *, form: Form = "int8", base: bytes = b"") -> bytes:
    """Write a student's weights down for a template.

    Args:
        student: in any mode; not changed.
        template: that names them.
        form: of the numbers.
        base: payload of the release before, whose scales are kept; one without scales, or damaged, is as good as none.

    Raises:
        ExportError: the template is another student's, or a weight is NaN or too large for fp16.
    """
    tensors = {name: tensor.numpy() for name, tensor in folded(student).state_dict().items()}
    needed = weight_shapes(template)
    wrong = sorted(set(needed.items()) ^ {(name, array.shape) for name, array in tensors.items()})
    if wrong:
        raise ExportError(f"template and student differ in {wrong[0][0]!r}: build the template from this student")
    kept, found = _scales_of(base), dict[str, npt.NDArray[np.generic]]()
    for name in needed:
        array = _finite(name, tensors[name])
        if form == "fp16" or array.ndim == 1 or name.startswith(_HEAD):
            found[name] = array.astype(np.float16)
            continue
        scale = found[name + SCALE] = _scale(array, kept.get(name))
        found[name] = _steps(array, scale).astype(np.int8)
    return save(found)


def served(student: Student, weights: bytes) -> Student:
    """The student with its own weights rounded as they are in a payload: what a device has of it, batch norm folded."""
    plain, scales = folded(student), _scales_of(weights)
    with torch.no_grad():
        for name, tensor in plain.state_dict().items():
            scale = scales.get(name)
            rounded = tensor.half() if scale is None else torch.from_numpy(_steps(tensor.numpy(), scale) * scale)
            tensor.copy_(rounded.float())
    return plain


def _scales_of(payload: bytes) -> dict[str, F4]:
    """Scales by the name of their weight."""
    try:
        tensors = load(payload) if payload else {}
    except (SafetensorError, KeyError, ValueError):
        return {}
    return {name.removesuffix(SCALE): array for name, array in tensors.items() if name.endswith(SCALE)}


def _scale(array: F4, kept: F4 | None) -> F4:
    """Scale of each output channel, (C, 1, …): the one that was, unless the channel outgrew it or shrank as far."""
    most = np.abs(array).max(axis=tuple(range(1, array.ndim)), keepdims=True)
    fresh: F4 = (ROOM / STEPS * np.maximum(most, np.float32(1e-8))).astype(np.float32)
    if kept is None or kept.shape != fresh.shape:
        return fresh
    fits = (most <= STEPS * kept) & (most * ROOM**2 >= STEPS * kept)
    scale: F4 = np.where(fits, kept, fresh)
    return scale


def _steps(array: F4, scale: F4) -> F4:
    steps: F4 = np.clip(np.round(array / scale), -STEPS, STEPS)
    return steps


def _finite(name: str, array: F4) -> F4:
    largest = np.finfo(np.float16).max
    if not np.isfinite(array).all() or np.abs(array).max(initial=0) > largest:
        raise ExportError(
            f"weight {name!r} holds NaN, infinity or a value above {largest:g}: training diverged; lower its rate"
        )
    return array
