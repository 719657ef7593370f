"""Weights payloads as differences from an earlier one: integer difference of bit patterns, shuffled, compressed; pure.

::

    offset 0   4 bytes   "RCD" and a version byte, 0x01
    offset 4   …         raw LZMA stream (`FILTERS`) of one byte string: for each tensor, in the order of its data, the
                         zig-zag of the difference of each number's rank from its rank in the base, modulo 2^bits, first
                         all low bytes, then all high ones

Both payloads are safetensors with the same header, which the delta does not repeat. The rank of a float counts the
floats below it, so that a step to the next float is a difference of one on either side of zero. What comes out is only
as good as its hash: the caller checks it against the signed manifest.
"""

from __future__ import annotations

import lzma
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edge_protocol.errors import DigestError

MAGIC = b"RCD\x01"
FILTERS = [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 20, "lc": 0, "lp": 0, "pb": 0}]
"""One MiB of dictionary is all that a hostile delta can make a device reserve beside the payload itself."""
MAX_HEADER_BYTES = 1 << 20
_PREFIX = 8
_WIDTHS = {"F16": 2, "I8": 1, "U8": 1, "F32": 4, "I32": 4}
_FLOATS = frozenset({"F16", "F32"})
U = npt.NDArray[np.unsignedinteger[Any]]


def make_delta(base: bytes, payload: bytes) -> bytes | None:
    """Write `payload` down as a difference from `base`; None when they do not have the same tensors.

    Raises:
        DigestError: one of them is no weights payload.
    """
    head, parts = _layout(base)
    if payload[: len(head)] != head or len(payload) != len(base):
        return None
    planes = [_planes(_ranks(payload, part) - _ranks(base, part)) for part in parts]
    return MAGIC + lzma.compress(b"".join(planes), lzma.FORMAT_RAW, filters=FILTERS)


def apply_delta(base: bytes, delta: bytes) -> bytes:
    """Give back the payload that `make_delta` was given, if `base` is the one that it was given.

    Never holds more than the size of `base` again: what would unpack to more is refused before it is unpacked.

    Raises:
        DigestError: the delta is damaged, or made for a payload of another layout.
    """
    head, parts = _layout(base)
    if delta[:4] != MAGIC:
        raise DigestError("delta: does not begin with RCD and version 1; the whole payload will be fetched")
    planes = _unpacked(delta[4:], len(base) - len(head))
    out = bytearray(base)
    at = 0
    for part in parts:
        start, size, width, _ = part
        difference = _numbers(planes[at : at + size], width)
        out[start : start + size] = _bits(_ranks(base, part) + difference, part).tobytes()
        at += size
    return bytes(out)


Part = tuple[int, int, int, bool]
"""Where a tensor's bytes begin, how many there are, bytes of a number, whether it is a float."""


def _layout(payload: bytes) -> tuple[bytes, list[Part]]:
    """Header bytes of safetensors, and its tensors in the order of their data, which must have no gap."""
    end = _PREFIX + int.from_bytes(payload[:_PREFIX], "little")
    try:
        if not _PREFIX < end <= min(len(payload), MAX_HEADER_BYTES):
            raise ValueError("its header does not fit")  # noqa: TRY301 - one place translates
        named: dict[str, Any] = msgspec.json.decode(payload[_PREFIX:end])
        tensors = sorted((t["data_offsets"], t["dtype"]) for n, t in named.items() if n != "__metadata__")
        parts = [(end + int(a), int(b) - int(a), _WIDTHS[dtype], dtype in _FLOATS) for (a, b), dtype in tensors]
        ends = [end, *(start + size for start, size, *_ in parts)]
        if [start for start, *_ in parts] != ends[:-1] or ends[-1] != len(payload):
            raise ValueError("its tensors leave gaps")  # noqa: TRY301 - one place translates
        if any(size < 0 or size % width for _, size, width, _ in parts):
            raise ValueError("a tensor has half a number")  # noqa: TRY301 - one place translates
    except (msgspec.DecodeError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DigestError(f"delta: the base is no weights payload: {error}; the whole one will be fetched") from error
    return payload[:end], parts


def _ranks(payload: bytes, part: Part) -> U:
    """Bit patterns as unsigned integers that grow with the number."""
    start, size, width, is_float = part
    bits: U = np.frombuffer(payload, f"<u{width}", size // width, start)
    sign = bits.dtype.type(1 << (8 * width - 1))
    if not is_float:
        return bits
    return np.where(bits & sign, ~bits, bits | sign)


def _bits(ranks: U, part: Part) -> U:
    """Undo `_ranks`."""
    _, _, width, is_float = part
    sign = ranks.dtype.type(1 << (8 * width - 1))
    return np.where(ranks & sign, ranks ^ sign, ~ranks) if is_float else ranks


def _planes(difference: U) -> bytes:
    """Zig-zag, then low bytes before high ones."""
    width = difference.dtype.itemsize
    signed = difference.view(f"<i{width}")
    zigzag = ((signed << 1) ^ (signed >> (8 * width - 1))).astype(f"<i{width}")
    return bytes(zigzag.view(np.uint8).reshape(-1, width).T.tobytes())


def _numbers(planes: bytes, width: int) -> U:
    """Undo `_planes`."""
    shuffled = np.frombuffer(planes, np.uint8).reshape(width, -1)
    zigzag: U = np.ascontiguousarray(shuffled.T).view(f"<u{width}").reshape(-1)
    one = zigzag.dtype.type(1)
    difference: U = (zigzag >> one) ^ (~(zigzag & one) + one)
    return difference


def _unpacked(stream: bytes, size: int) -> bytes:
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=FILTERS)
    try:
        data = unpacker.decompress(stream, max_length=size + 1)
    except lzma.LZMAError as error:
        raise DigestError(f"delta: damaged: {error}; the whole payload will be fetched") from error
    if len(data) != size:
        raise DigestError(
            f"delta: unpacks to other than the {size} bytes of its base; the whole payload will be fetched"
        )
    return data
