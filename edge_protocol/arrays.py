"""Arrays on the wire: raw little-endian bytes with dtype and shape. No pickle, no lists of numbers.

Owns the list of dtypes that may travel and the check that bytes and shape agree; owns no meaning of the numbers.
"""

from __future__ import annotations

from math import prod

import msgspec
import numpy as np
import numpy.typing as npt

from edge_protocol.errors import LocalProtocolError

MAX_DIMENSIONS = 4
MAX_ARRAY_BYTES = 4 << 20

_DTYPES = {
    name: np.dtype(code)
    for name, code in {"u1": "|u1", "i1": "|i1", "u2": "<u2", "i2": "<i2", "f2": "<f2", "f4": "<f4"}.items()
}
_ITEM_BYTES = {name: dtype.itemsize for name, dtype in _DTYPES.items()}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class Array(msgspec.Struct, frozen=True, array_like=True):
    """An n-dimensional array on the wire.

    Attributes:
        dtype: one of ``u1 i1 u2 i2 f2 f4`` (NumPy codes; little-endian).
        shape: at most four dimensions, each ≥ 0.
        data: ``prod(shape) * itemsize`` bytes, C order.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    def __post_init__(self) -> None:
        item_bytes = _ITEM_BYTES.get(self.dtype)
        if item_bytes is None:
            raise LocalProtocolError(
                "array-dtype", f"array dtype {self.dtype[:8]!r} is not one of {', '.join(_DTYPES)}"
            )
        shape, size = self.shape, len(self.data)
        if len(shape) > MAX_DIMENSIONS or (shape and min(shape) < 0):
            raise LocalProtocolError("array-shape", f"array shape {shape[:8]} has a negative or a fifth dimension")
        if prod(shape) * item_bytes != size:
            raise LocalProtocolError(
                "array-shape", f"{self.dtype}{list(shape)} needs {prod(shape) * item_bytes} bytes, got {size}"
            )
        if size > MAX_ARRAY_BYTES or (not size and max(shape, default=0) > MAX_ARRAY_BYTES):
            raise LocalProtocolError("oversized", f"{self.dtype}{list(shape)} exceeds {MAX_ARRAY_BYTES}")


def pack(values: npt.NDArray[np.generic]) -> Array:
    """Copy an array of any layout into its wire form.

    Raises:
        LocalProtocolError: its dtype may not travel, or it is too large.
    """
    dtype = values.dtype.newbyteorder("<") if values.dtype.byteorder == ">" else values.dtype
    name = _NAMES.get(dtype)
    if name is None:
        raise LocalProtocolError(
            "array-dtype", f"arrays of {values.dtype} do not travel; use one of {', '.join(_DTYPES)}"
        )
    return Array(name, values.shape, values.astype(dtype, copy=False).tobytes())


def unpack(array: Array) -> npt.NDArray[np.generic]:
    """View the wire form as a read-only NumPy array of the same dtype and shape; nothing is copied."""
    return np.frombuffer(array.data, _DTYPES[array.dtype]).reshape(array.shape)
