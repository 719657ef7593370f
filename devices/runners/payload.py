"""A weights payload and where its tensors lie in a template, without the onnx package, which no device has.

A template is an ONNX file whose weights are external: each says a file, an offset and a length. TensorRT's parser reads
such a file from beside the template, so the payload is laid out there as the template says. The few fields needed are
read from the file itself (protobuf's wire format; field numbers from onnx.proto3 of ONNX 1.20).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load

from edge_protocol.errors import IncompatibleError, StoreError
from edge_protocol.manifest import SCALE

Tensors = dict[str, npt.NDArray[np.generic]]
DTYPES: Final[Mapping[int, type[np.generic]]] = {
    1: np.float32,
    2: np.uint8,
    3: np.int8,
    6: np.int32,
    7: np.int64,
    10: np.float16,
}
"""Of `TensorProto.DataType`, what a weight of ours may be."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GRAPH, _INITIALIZER, _DIMS, _TYPE, _NAME, _EXTERNAL, _KEY, _VALUE = 7, 5, 1, 2, 8, 13, 1, 2
_MOST = 1 << 31


class Place(NamedTuple):
    """Where a template wants a weight: shape, type, and the bytes `offset` to `offset` + size of `file`."""

    shape: tuple[int, ...]
    dtype: type[np.generic]
    file: str
    offset: int


def read_payload(weights: bytes) -> Tensors:
    """Read a payload: floating point, and steps of a scale, as FP32; integers of a quantised student as they are.

    Raises:
        IncompatibleError: truncated, a weight is not a finite number, or a scale does not fit its weight.
    """
    try:
        tensors: Tensors = load(weights)
    except (SafetensorError, KeyError, ValueError) as error:
        raise IncompatibleError(
            f"weights payload of {len(weights)} bytes cannot be read: {error}; fetch it again"
        ) from error
    for scale in [name for name in tensors if name.endswith(SCALE)]:
        name = scale.removesuffix(SCALE)
        tensors[name] = _scaled(name, tensors.get(name), tensors.pop(scale))
    for name, array in tensors.items():
        if np.issubdtype(array.dtype, np.floating):
            if not np.isfinite(array).all():
                raise IncompatibleError(f"weight {name!r} ({array.dtype}) holds something that is not a finite number")
            tensors[name] = np.asarray(array, np.float32, order="C")
    return tensors


def _scaled(
    name: str, steps: npt.NDArray[np.generic] | None, scale: npt.NDArray[np.generic]
) -> npt.NDArray[np.float32]:
    shape = None if steps is None else (*steps.shape[:1], *(1 for _ in steps.shape[1:]))
    if steps is None or steps.dtype != np.int8 or scale.shape != shape or scale.dtype not in (np.float16, np.float32):
        raise IncompatibleError(f"weight {name!r} and its scale {scale.shape} do not belong together; fetch them again")
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by name
        found: npt.NDArray[np.float32] = steps.astype(np.float32) * scale.astype(np.float32)
    return found


def places(template: bytes) -> dict[str, Place]:
    """Return where each external weight of a template lies; empty for a file that holds its weights itself.

    Raises:
        IncompatibleError: not an ONNX file, or a weight of a type or place that no template of ours has.
    """
    try:
        graphs = [part for field, part in _fields(template) if field == _GRAPH and isinstance(part, bytes)]
        if not graphs:
            raise ValueError("it has no graph")  # noqa: TRY301 - one message for all that is wrong
        tensors = [part for field, part in _fields(graphs[-1]) if field == _INITIALIZER and isinstance(part, bytes)]
        return dict(found for tensor in tensors if (found := _place(tensor)))
    except (ValueError, KeyError) as error:
        raise IncompatibleError(
            f"template of {len(template)} bytes is not an ONNX file, or none of ours: {error}; build or fetch it again"
        ) from error


def fitted(template: bytes, tensors: Tensors) -> Tensors:
    """Return the weights in the types that the template declares.

    Raises:
        IncompatibleError: names, shapes or kinds of number differ: the payload is for another template.
    """
    wanted = places(template)
    found: Tensors = {}
    for name in [*wanted, *tensors]:
        place, array = wanted.get(name), tensors.get(name)
        if place is None or array is None:
            raise _misfit(f"the {'payload lacks' if array is None else 'template knows no'} {name!r}")
        if array.shape != place.shape:
            raise _misfit(f"{name!r} is {array.shape}, the template takes {place.shape}")
        if np.issubdtype(array.dtype, np.floating) != np.issubdtype(place.dtype, np.floating):
            raise _misfit(f"{name!r} is {array.dtype}, the template takes {place.dtype.__name__}")
        found[name] = np.ascontiguousarray(array, place.dtype)
    return found


def lay_out(folder: Path, template: bytes, weights: bytes, name: str = "student.onnx") -> Path:
    """Write a template and, beside it, its weights as it names them; return the template's path.

    Raises:
        IncompatibleError: the payload is for another template, damaged, or not finite.
        StoreError: the disk refuses.
    """
    tensors, wanted = fitted(template, read_payload(weights)), places(template)
    files: dict[str, bytearray] = {}
    for key, place in wanted.items():
        raw = tensors[key].tobytes()
        body = files.setdefault(place.file, bytearray())
        body.extend(bytes(max(0, place.offset + len(raw) - len(body))))
        body[place.offset : place.offset + len(raw)] = raw
    try:
        for file, body in files.items():
            (folder / file).write_bytes(body)
        (folder / name).write_bytes(template)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written: {error.strerror or error}; free space") from error
    return folder / name


def _misfit(reason: str) -> IncompatibleError:
    return IncompatibleError(f"payload for another template: {reason}; fetch both again from one release")


def _place(tensor: bytes) -> tuple[str, Place] | None:
    """Name and place of a TensorProto; None when its numbers are inside it."""
    shape: list[int] = []
    kind, name, entries = 0, "", {}
    for field, part in _fields(tensor):
        if field == _DIMS:
            shape += [part] if isinstance(part, int) else _varints(part)
        elif field == _TYPE and isinstance(part, int):
            kind = part
        elif field == _NAME and isinstance(part, bytes):
            name = part.decode()
        elif field == _EXTERNAL and isinstance(part, bytes):
            said = dict(_fields(part))
            entries[_text(said[_KEY])] = _text(said[_VALUE])
    if not entries:
        return None
    file, offset = entries["location"], int(entries.get("offset", "0"))
    dtype = DTYPES[kind]
    size = prod(shape) * np.dtype(dtype).itemsize
    if Path(file).name != file or file in {"", ".."} or "\0" in file or not 0 <= offset <= _MOST - size:
        raise ValueError(f"weight {name!r} lies at {offset} of {file!r}")
    return name, Place(tuple(shape), dtype, file, offset)


def _text(part: int | bytes) -> str:
    return part.decode() if isinstance(part, bytes) else str(part)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a protobuf message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        field, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield field, value
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(kind)
        if size is None and kind == _BYTES:
            size, at = _varint(data, at)
        if size is None or at + size > len(data):
            raise ValueError("it is truncated or no protobuf")
        yield field, data[at : at + size]
        at += size


def _varints(data: bytes) -> list[int]:
    found, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        found.append(value)
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:  # noqa: PLR2004 - the continuation bit
            return value, at
    raise ValueError("it is truncated or no protobuf")
