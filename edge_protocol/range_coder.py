"""Adaptive binary range coder: decisions in, few bytes out. Owns arithmetic and counts, and no meaning of a decision.

A range coder (Martin 1979; byte-wise as in LZMA by Pavlov) narrows an interval of 32 bits by the probability of each
decision. The probability is counted per context as the stream goes on (Krichevsky & Trofimov 1981), so nothing but the
decisions travels. `Encoder.code` and `Decoder.code` are called alike and return the decision: one walk over the data
serves both directions, and the two cannot drift apart. Pure Python, integers only: every machine gets the same bytes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from edge_protocol.errors import RemoteProtocolError

_BITS = 32
_MASK = (1 << _BITS) - 1
_LEAST = 1 << (_BITS - 8)
_HEAD = _BITS // 8
_STEP = 16
"""What one decision adds to a count; a fresh context counts half of it on both sides."""
_MOST = 96 * _STEP
"""Counts of a context are halved above this: old decisions fade."""


class Coder(ABC):
    """What both directions share: the counts of each context.

    Args:
        contexts: how many contexts there are.
    """

    def __init__(self, contexts: int) -> None:
        self._counts = ([_STEP // 2] * contexts, [_STEP // 2] * contexts)
        self._range = _MASK

    @abstractmethod
    def code(self, context: int, bit: int) -> int:
        """Write a decision and return it; or read one and return it, whatever `bit` says."""

    def symbol(self, context: int, bits: int, value: int) -> int:
        """Write a number below 2^bits and return it, or read one: a binary tree, most significant bit first.

        Takes the contexts from `context` to `context` + 2^bits - 1.
        """
        node = 1
        for shift in range(bits - 1, -1, -1):
            node += node + self.code(context + node, value >> shift & 1)
        return node - (1 << bits)

    def _learn(self, context: int, bit: int) -> None:
        mine, others = self._counts[bit], self._counts[1 - bit]
        mine[context] += _STEP
        if mine[context] + others[context] > _MOST:
            mine[context] = (mine[context] + 1) >> 1
            others[context] = (others[context] + 1) >> 1


class Encoder(Coder):
    """Writes decisions.

    Args:
        contexts: how many contexts there are; the decoder must be told the same.
    """

    def __init__(self, contexts: int) -> None:
        super().__init__(contexts)
        self._low, self._bytes = 0, bytearray()

    def code(self, context: int, bit: int) -> int:
        """Write one decision, 0 or 1, in a context."""
        zeros, ones = self._counts
        split = self._range // (zeros[context] + ones[context]) * zeros[context]
        if bit:
            self._low += split
            self._range -= split
            if self._low > _MASK:
                self._carry()
        else:
            self._range = split
        while self._range < _LEAST:
            self._bytes.append(self._low >> (_BITS - 8))
            self._low = self._low << 8 & _MASK
            self._range <<= 8
        self._learn(context, bit)
        return bit

    def finish(self) -> bytes:
        """The stream. Its last byte is the least that names a point of the interval, with zeros thought behind it."""
        self._low += _LEAST - 1
        if self._low > _MASK:
            self._carry()
        self._bytes.append(self._low >> (_BITS - 8))
        return bytes(self._bytes)

    def _carry(self) -> None:
        self._low &= _MASK
        at = len(self._bytes) - 1
        while self._bytes[at] == 0xFF:  # noqa: PLR2004 - a byte that overflows
            self._bytes[at] = 0
            at -= 1
        self._bytes[at] += 1


class Decoder(Coder):
    """Reads decisions in the order and contexts in which they were written.

    The caller bounds how many it asks for: frequent decisions take next to no bytes, so the stream's length does not.

    Args:
        contexts: as many as the encoder had.
        data: the stream.
    """

    def __init__(self, contexts: int, data: bytes) -> None:
        super().__init__(contexts)
        self._data, self._at = data + bytes(_HEAD - 1), _HEAD
        self._point = int.from_bytes(self._data[:_HEAD], "big")
        if not data or self._point >= self._range:
            raise RemoteProtocolError("malformed", f"{len(data)} bytes begin no coded stream")

    def code(self, context: int, bit: int = 0) -> int:
        """Read one decision.

        Raises:
            RemoteProtocolError: ``malformed``; the stream is shorter than what it should hold.
        """
        zeros, ones = self._counts
        split = self._range // (zeros[context] + ones[context]) * zeros[context]
        if self._point < split:
            self._range, bit = split, 0
        else:
            self._point, self._range, bit = self._point - split, self._range - split, 1
        while self._range < _LEAST:
            if self._at == len(self._data):
                raise RemoteProtocolError("malformed", f"a coded stream ends early, after {self._at - _HEAD + 1} bytes")
            self._point = self._point << 8 | self._data[self._at]
            self._at += 1
            self._range <<= 8
        self._learn(context, bit)
        return bit

    def finish(self) -> None:
        """Say that everything was read.

        Raises:
            RemoteProtocolError: ``malformed``; bytes are left over.
        """
        if left := len(self._data) - self._at:
            raise RemoteProtocolError("malformed", f"{left} bytes are left after a coded stream")
