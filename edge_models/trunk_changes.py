"""How a trunk changed, as few bytes and back: INT8 steps of a scale for each output channel, biases in half precision.

Owns the form of `edge_protocol.trunks.TrunkChange.data` and the length of a change; owns no training and no rule. A
channel's scale is its largest change over 127, so that rounding moves no weight by more than half of that.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from edge_protocol.errors import LocalProtocolError, RemoteProtocolError
from edge_protocol.manifest import SCALE
from edge_protocol.trunks import MAX_CHANGE_BYTES

F4 = npt.NDArray[np.float32]
Change = Mapping[str, F4]
"""By tensor: what was added to it."""
STEPS = 127
_SMALLEST = np.float32(1e-20)


def trunk_of(tensors: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, F4]:
    """The trunk of a student's weights, in order of names: every tensor but the head's."""
    return {name: np.asarray(tensors[name], np.float32) for name in sorted(tensors) if not name.startswith("head.")}


def length(change: Change) -> float:
    """Euclidean norm over all tensors together."""
    return float(np.sqrt(sum(np.square(value, dtype=np.float64).sum() for value in change.values())))


def clipped(change: Change, limit: float) -> dict[str, F4]:
    """The change, shortened to a length where it is longer; its direction stays."""
    far = length(change)
    share = np.float32(limit / far if far > limit else 1.0)
    return {name: value * share for name, value in change.items()}


def encode_change(change: Change) -> bytes:
    """Round a change and write it down.

    Raises:
        LocalProtocolError: ``not-finite``, or ``oversized``: larger than a report may hold.
    """
    found: dict[str, npt.NDArray[np.generic]] = {}
    for name, value in change.items():
        if not np.isfinite(value).all() or np.abs(value).max(initial=0) > np.finfo(np.float16).max:
            raise LocalProtocolError("not-finite", f"the change of {name!r} is no finite number: training diverged")
        if value.ndim < 2:  # noqa: PLR2004 - a bias
            found[name] = value.astype(np.float16)
            continue
        most = np.abs(value).max(axis=tuple(range(1, value.ndim)), keepdims=True, initial=0)
        scale = np.maximum(most / np.float32(STEPS), _SMALLEST).astype(np.float32)
        found[name], found[name + SCALE] = np.rint(value / scale).astype(np.int8), scale
    data = save(found)
    if len(data) > MAX_CHANGE_BYTES:
        raise LocalProtocolError("oversized", f"a change of {len(data)} bytes exceeds {MAX_CHANGE_BYTES}")
    return data


def decode_change(data: bytes) -> dict[str, F4]:
    """Undo `encode_change`, but for its rounding.

    Raises:
        RemoteProtocolError: ``malformed`` or ``not-finite``.
    """
    try:
        tensors = dict(sorted(load(data).items()))  # what is wrong is always said of the same tensor
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise RemoteProtocolError("malformed", f"a trunk's change of {len(data)} bytes: {error}") from error
    scales = {name.removesuffix(SCALE): tensors.pop(name) for name in list(tensors) if name.endswith(SCALE)}
    found = {name: _read(name, value, scales.pop(name, None)) for name, value in tensors.items()}
    if scales:
        raise RemoteProtocolError("malformed", f"{min(scales)[:80]!r} has a scale and no steps")
    return found


def _read(name: str, value: npt.NDArray[np.generic], scale: npt.NDArray[np.generic] | None) -> F4:
    """One tensor; float32 of its shape."""
    shape = (*value.shape[:1], *(1 for _ in value.shape[1:]))
    kinds = (np.dtype(np.int8), np.dtype(np.float32)) if value.ndim > 1 else (np.dtype(np.float16), None)
    if (value.dtype, None if scale is None else scale.dtype) != kinds or (scale is not None and scale.shape != shape):
        raise RemoteProtocolError(
            "malformed", f"{name[:80]!r}: {value.dtype}{list(value.shape)} and its scale do not fit"
        )
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
        found = value.astype(np.float32) if scale is None else value.astype(np.float32) * scale.astype(np.float32)
    if not np.isfinite(found).all():
        raise RemoteProtocolError("not-finite", f"the change of {name[:80]!r} holds NaN or infinity")
    return found
