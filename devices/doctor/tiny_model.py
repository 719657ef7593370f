"""A tiny ONNX model as bytes: one convolution, a ReLU, a mean, a matrix. Owns no runtime.

Written out in Protocol Buffers (see onnx.proto3 of ONNX, IR version 7), because a board has no `onnx` package, and the
operators are those of our students: a provider that lacks a kernel for this GPU fails on them.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

F4 = npt.NDArray[np.float32]

IR_VERSION: Final = 7
OPSET: Final = 13
SHAPE: Final = (1, 3, 16, 16)
OUTPUTS: Final = 10
_CHANNELS: Final = 8
_FLOAT: Final = 1
_SEED: Final = 7


def tiny_input() -> F4:
    """(1, 3, 16, 16) float32, the same every time."""
    return np.random.default_rng(_SEED).normal(size=SHAPE).astype(np.float32)


def tiny_model() -> bytes:
    """The model: ``input`` (1, 3, 16, 16) float32 to ``output`` (1, 10) float32."""
    draw = np.random.default_rng(_SEED + 1)
    weights = {
        "kernel": draw.normal(0, 0.3, (_CHANNELS, 3, 3, 3)).astype(np.float32),
        "matrix": draw.normal(0, 0.5, (_CHANNELS, OUTPUTS)).astype(np.float32),
    }
    nodes = [
        _node("Conv", ["input", "kernel"], "features"),
        _node("Relu", ["features"], "active"),
        _node("GlobalAveragePool", ["active"], "pooled"),
        _node("Flatten", ["pooled"], "flat"),
        _node("MatMul", ["flat", "matrix"], "output"),
    ]
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, b"tiny")
    graph += b"".join(_field(5, _tensor(name, array)) for name, array in weights.items())
    graph += _field(11, _value("input", SHAPE)) + _field(12, _value("output", (1, OUTPUTS)))
    return _number(1, IR_VERSION) + _field(7, graph) + _field(8, _field(1, b"") + _number(2, OPSET))


def _node(operator: str, inputs: list[str], output: str) -> bytes:
    return (
        b"".join(_field(1, name.encode()) for name in inputs)
        + _field(2, output.encode())
        + _field(4, operator.encode())
    )


def _tensor(name: str, array: F4) -> bytes:
    dimensions = b"".join(_number(1, size) for size in array.shape)
    return dimensions + _number(2, _FLOAT) + _field(8, name.encode()) + _field(9, array.astype("<f4").tobytes())


def _value(name: str, shape: tuple[int, ...]) -> bytes:
    dimensions = b"".join(_field(1, _number(1, size)) for size in shape)
    return _field(1, name.encode()) + _field(2, _field(1, _number(1, _FLOAT) + _field(2, dimensions)))


def _field(number: int, data: bytes) -> bytes:
    """A field of bytes, text or a message."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _number(number: int, value: int) -> bytes:
    """A field that holds a whole number."""
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
