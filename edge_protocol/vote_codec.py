"""Votes ⇄ few bytes, told beside votes that both sides have already; lossless. Owns the order and context of decisions.

What a device says about a proxy is mostly what it said about it a round ago. Each level is therefore coded in the
context of the *base*: votes of the same device on the same proxies that the server has. A digest of the votes goes
along, so that another base, a damaged byte or another codec ends in a refusal and never in a wrong vote.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from itertools import repeat
from typing import Annotated, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta

from edge_protocol.arrays import pack
from edge_protocol.errors import LocalProtocolError, RemoteProtocolError
from edge_protocol.fields import Count
from edge_protocol.range_coder import Coder, Decoder, Encoder
from edge_protocol.votes import (
    MAX_SAMPLES,
    MOST_MEAN,
    MOST_SPREAD,
    ClassVotes,
    ForecastVotes,
    Votes,
    levels_of_votes,
    votes_of_levels,
)

DIGEST_BYTES = 8
UNKNOWN_BASE = "unknown-base"
"""Why a report is refused whose base the server does not have: the device answers the same round again, in full."""
MAX_OUTPUTS = 256
Kind = Literal["classify", "forecast"]
"""Of a task, and so of its votes."""
_Vote: TypeAlias = tuple[int, int, int]


class CodedVotes(msgspec.Struct, frozen=True, array_like=True):
    """Votes as a stream of the range coder.

    Attributes:
        samples: N.
        outputs: C of `ClassVotes`, 2 · H of `ForecastVotes`.
        base: number of the round whose accepted votes of this device are the base; 0 for none.
        digest: first bytes of the SHA-256 of the votes as a report holds them uncoded.
        data: the stream.
    """

    samples: Annotated[int, Meta(ge=0, le=MAX_SAMPLES)]
    outputs: Annotated[int, Meta(ge=1, le=MAX_OUTPUTS)]
    base: Count
    digest: Annotated[bytes, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
    data: bytes


def encode_votes(votes: Votes, base: Votes | None = None, number: int = 0) -> CodedVotes:
    """Code votes beside `base`, the votes of round `number`; None and 0 for none.

    Raises:
        LocalProtocolError: ``wrong-shape``; the base is of another shape, or the votes are not on levels.
    """
    if base is not None and shape_of(base) != shape_of(votes):
        raise LocalProtocolError("wrong-shape", f"votes of shape {shape_of(votes)} beside a base of {shape_of(base)}")
    encoder = Encoder(_CONTEXTS)
    if _walk(encoder, votes, base) != votes:
        raise LocalProtocolError(
            "wrong-shape", "votes are not on levels: a silent one names a class, or a step is missed"
        )
    _, samples, outputs = shape_of(votes)
    return CodedVotes(samples, outputs, number if base is not None else 0, _digest(votes), encoder.finish())


def decode_votes(coded: CodedVotes, kind: Kind, base: Votes | None = None) -> Votes:
    """Undo `encode_votes`; the work grows with samples and outputs, so check first that so many are wanted.

    Args:
        coded: as it came.
        kind: of the task.
        base: the votes of round `coded.base`; None when that is 0.

    Raises:
        RemoteProtocolError: ``malformed``; the stream is damaged, or was not coded beside this base.
    """
    shape = (kind, coded.samples, coded.outputs)
    try:
        blank = _blank(*shape)
        if base is not None and shape_of(base) != shape:
            raise RemoteProtocolError("malformed", f"votes of shape {shape} beside a base of {shape_of(base)}")
        decoder = Decoder(_CONTEXTS, coded.data)
        votes = _walk(decoder, blank, base)
        decoder.finish()
    except LocalProtocolError as error:
        raise RemoteProtocolError("malformed", f"coded votes hold what no votes do: {error}") from error
    if _digest(votes) != coded.digest:
        raise RemoteProtocolError("malformed", f"coded votes have another digest than they say (base {coded.base})")
    return votes


def shape_of(votes: Votes) -> tuple[Kind, int, int]:
    """Kind, samples and outputs: what a base must share."""
    if isinstance(votes, ClassVotes):
        return "classify", votes.samples, votes.held.shape[0]
    return "forecast", votes.samples, 2 * votes.mean.shape[1]


def _digest(votes: Votes) -> bytes:
    return sha256(msgspec.msgpack.encode(votes)).digest()[:DIGEST_BYTES]


def _blank(kind: Kind, samples: int, outputs: int) -> Votes:
    """Votes of a shape that say nothing: what a decoder's walk is given, and does not look at."""
    nothing = pack(np.zeros(samples, np.uint8))
    if kind == "classify":
        return ClassVotes(nothing, nothing, nothing, pack(np.zeros(outputs, np.uint8)))
    shape = (samples, outputs // 2)
    return ForecastVotes(pack(np.zeros(shape, np.float16)), pack(np.ones(shape, np.float16)))


def _walk(coder: Coder, votes: Votes, base: Votes | None) -> Votes:
    """Take `coder` through every decision of `votes`, in order; return the votes that it wrote or read."""
    if isinstance(votes, ClassVotes):
        assert base is None or isinstance(base, ClassVotes)
        return _walk_classes(coder, votes, base)
    assert base is None or isinstance(base, ForecastVotes)
    return _walk_forecasts(coder, votes, base)


# Contexts of classes: density by the base's (8: there is none), class by the base's confidence, confidence by the
# base's (4: it named no or another class) and density.
_DENSITY, _NO_DENSITY = 0, 8
_CONFIDENCE, _NO_CONFIDENCE = _DENSITY + 8 * 9, 4
_SAME_CLASS = _CONFIDENCE + 4 * 8 * 5
_CLASS = _SAME_CLASS + 4
_HELD = _CLASS + 256


def _walk_classes(coder: Coder, votes: ClassVotes, base: ClassVotes | None) -> ClassVotes:
    """First which classes are held, then sample by sample."""
    known = base.held.data if base else repeat(2)
    held = [coder.code(_HELD + old, says) for says, old in zip(votes.held.data, known, strict=False)]
    olds = _rows(base) if base else repeat((0, _NO_CONFIDENCE, _NO_DENSITY))
    bits = (len(held) - 1).bit_length()
    said = [_walk_vote(coder, bits, vote, old) for vote, old in zip(_rows(votes), olds, strict=False)]
    levels = np.array(said, np.uint8).reshape(-1, 3).T
    return ClassVotes(*(pack(np.ascontiguousarray(each)) for each in (*levels, np.array(held, np.uint8))))


def _rows(votes: ClassVotes) -> Iterable[_Vote]:
    return zip(votes.classes.data, votes.confidence.data, votes.density.data, strict=True)


def _walk_vote(coder: Coder, bits: int, vote: _Vote, old: _Vote) -> _Vote:
    """The density and, where that is not 0, the class in so many `bits`, and the confidence."""
    (name, sure, density), (old_name, beside, old_density) = vote, old
    level = coder.symbol(_DENSITY + 8 * old_density, 3, density)
    if not level:
        return 0, 0, 0
    if 0 < old_density < _NO_DENSITY and coder.code(_SAME_CLASS + beside, int(name == old_name)):
        read = old_name
    else:
        read, beside = coder.symbol(_CLASS, bits, name), _NO_CONFIDENCE
    return read, coder.symbol(_CONFIDENCE + 4 * (8 * beside + level), 2, sure), level


# Contexts of forecasts: a step by the size of the last one, first of means, then of spreads.
_SIZES, _LONGEST = 4, 12
_STEP_CONTEXTS = 3 * (_LONGEST + 1)
_CONTEXTS = max(_HELD + 3, 2 * _SIZES * _STEP_CONTEXTS)


def _walk_forecasts(coder: Coder, votes: ForecastVotes, base: ForecastVotes | None) -> ForecastVotes:
    """Of each sample the means, then the spreads, as steps from the base, or from horizon to horizon."""
    tables = [levels.tolist() for levels in levels_of_votes(votes)]
    olds = [levels.tolist() for levels in levels_of_votes(base)] if base else [repeat(None), repeat(None)]
    for rows in zip(*tables, *olds, strict=False):
        for which, most in enumerate((MOST_MEAN, MOST_SPREAD)):
            _walk_row(coder, which * _SIZES * _STEP_CONTEXTS, rows[which], rows[which + 2], most)
    mean, spread = (np.array(rows, np.int64).reshape(votes.mean.shape) for rows in tables)
    return votes_of_levels(mean, spread)


def _walk_row(coder: Coder, contexts: int, row: list[int], old: list[int] | None, most: int) -> None:
    """Write a sample's levels, or read them into `row`."""
    step = 0
    for h, level in enumerate(row):
        near = old[h] if old is not None else (row[h - 1] if h else 0)
        size = min(abs(step).bit_length(), _SIZES - 1)
        step = _step(coder, contexts + size * _STEP_CONTEXTS, level - near)
        row[h] = near + step
        if abs(row[h]) > most:
            raise RemoteProtocolError("malformed", f"a coded forecast is at level {row[h]}, beyond {most}")


def _step(coder: Coder, contexts: int, step: int) -> int:
    """A whole number: length in binary digits, sign, then the digits below the first (Elias' gamma, adaptive)."""
    size, length = abs(step), 0
    while length < _LONGEST and coder.code(contexts + length, int(size.bit_length() > length)):
        length += 1
    if not length:
        return 0
    negative = coder.code(contexts + _LONGEST, int(step < 0))
    read = 1
    for shift in range(length - 2, -1, -1):
        second = shift == length - 2
        read += read + coder.code(contexts + (2 if second else 1) * (_LONGEST + 1) + length, size >> shift & 1)
    return -read if negative else read
