"""Density ratios of many reports, a block of devices at a time: levels in, single classes and weighted sums out.

Owns the arithmetic of ADR-0008 for a whole fleet; owns no trust and no rule. A report's odds are two numbers a sample:
what every class held gets (`rest`), and what the class named gets beyond that (`more`). Decoding each report to odds of
every class costs five times as much (``benchmarks/learning/aggregate.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge_protocol.votes import CONFIDENCE, ODDS, ClassVotes

F4 = npt.NDArray[np.float32]
U1 = npt.NDArray[np.uint8]
I8 = npt.NDArray[np.int64]
BLOCK = 64
"""Devices decoded at once: as many as stay in a core's cache."""
LEAST_MEAN = np.float32(1e-6)


class Ratios(Protocol):
    """Density ratios of n devices on N samples."""

    @property
    def devices(self) -> slice:
        """Places of these devices."""

    def picked(self, rows: I8 | slice, classes: I8) -> F4:
        """Ratios (n, R) float32, of a class on a sample each, mean 1 over all samples; 0 where it is not held.

        Args:
            rows: which samples.
            classes: (R,) int64, which class on each.
        """

    def weighted(self, weights: F4) -> F4:
        """Sum over these devices of weight times ratio: (N, C) float32.

        Args:
            weights: (n, C) float32, of each device in each class.
        """

    def agreement(self, classes: I8, weight: F4) -> F4:
        """Share of what each device says that names this class, by the odds told: (n,) float32, 0 of a silent one.

        Args:
            classes: (N,) int64, a class on each sample.
            weight: (N,) float32 ≥ 0, what each sample counts.
        """


@dataclass(frozen=True, eq=False)
class Block:
    """`Ratios` out of levels: n devices' odds of class c on a sample are ``held · rest + (named == c) · more``.

    Attributes:
        start: place of the first device.
        named: (n, N) uint8, the class named.
        spoken: (n, N) bool, whether a device speaks of a sample.
        rest: (n, N) float32 ≥ 0, odds of each class held that is not named.
        more: (n, N) float32, odds of the class named beyond that; 0 where it is not held.
        held: (n, C) float32, 0 or 1.
        means: (n, C) float32 > 0, mean odds of each class over the samples.
    """

    start: int
    named: U1
    spoken: npt.NDArray[np.bool_]
    rest: F4
    more: F4
    held: F4
    means: F4

    @property
    def devices(self) -> slice:
        """Places of these devices."""
        return slice(self.start, self.start + len(self.named))

    def picked(self, rows: I8 | slice, classes: I8) -> F4:
        """Ratios (n, R) float32, of a class on a sample each, mean 1 over all samples; 0 where it is not held."""
        odds: F4 = self.more[:, rows] * (self.named[:, rows] == classes)
        odds += self.rest[:, rows]
        odds *= (self.held / self.means).take(classes, axis=1)
        return odds

    def weighted(self, weights: F4) -> F4:
        """Sum over these devices of weight times ratio: (N, C) float32."""
        scale = weights / self.means
        total = (scale * self.held).T @ self.rest
        part, mine = np.empty_like(self.more), np.empty(self.named.shape, np.bool_)
        for c in range(len(total)):
            np.equal(self.named, c, out=mine)
            total[c] += scale[:, c] @ np.multiply(self.more, mine, out=part)
        return np.asarray(total.T)

    def agreement(self, classes: I8, weight: F4) -> F4:
        """Share of what each device says that names this class, by the odds told: (n,) float32, 0 of a silent one."""
        told = self.rest * self.held.sum(1, keepdims=True)
        told += self.more
        told *= self.spoken
        total = told @ weight
        told *= self.named == classes.astype(np.uint8)
        return np.asarray(np.divide(told @ weight, total, out=np.zeros_like(total), where=total > 0))


def blocks(votes: Sequence[ClassVotes]) -> Iterator[Block]:
    """Decode reports, at least one, on the same samples and classes; some at a time, in their order."""
    odds = np.empty((2, len(votes), votes[0].samples), np.float32)  # at once: few large pages in place of many small
    for start in range(0, len(votes), BLOCK):
        stop = start + BLOCK
        yield _decoded(start, votes[start:stop], *odds[:, start:stop])


def stacked(columns: Sequence[bytes]) -> U1:
    """One row of bytes for each device: (n, ·) uint8; rows are of one length."""
    return np.frombuffer(b"".join(columns), np.uint8).reshape(len(columns), -1)


def _decoded(start: int, votes: Sequence[ClassVotes], rest: F4, more: F4) -> Block:
    held = stacked([each.held.data for each in votes])
    named = stacked([each.classes.data for each in votes])
    density = stacked([each.density.data for each in votes])
    pair = density * np.uint8(len(CONFIDENCE))
    pair += stacked([each.confidence.data for each in votes])
    lowest, highest = (table[held.sum(1)] for table in _TABLES)
    for at in range(len(votes)):
        levels = pair[at].astype(np.intp)
        lowest[at].take(levels, out=rest[at], mode="clip")
        highest[at].take(levels, out=more[at], mode="clip")
    known = held.astype(np.float32)
    if not held.all():
        more *= np.take_along_axis(known, named.astype(np.int64), 1)
    counts = _counted(named, pair, held.shape[1])
    means = known * (np.einsum("ncp,np->n", counts, lowest)[:, None] + np.einsum("ncp,np->nc", counts, highest))
    return Block(start, named, density > 0, rest, more, known, np.maximum(means / named.shape[1], LEAST_MEAN))


def _counted(named: U1, pair: U1, classes: int) -> F4:
    """On how many samples each device names each class with each pair of levels: (n, C, 32) float32."""
    pairs = _TABLES[0].shape[1]
    both = named.astype(np.uint16) * np.uint16(pairs) + pair
    counts = [np.bincount(row, minlength=classes * pairs) for row in both]
    return np.array(counts, np.float32).reshape(len(named), classes, pairs)


def _tables() -> tuple[F4, F4]:
    """`rest` and `more` of each pair of levels, (257, 32) float32, by how many classes a device holds."""
    others = np.maximum(np.arange(257, dtype=np.float32) - 1, 0)[:, None, None]
    speaks = (np.arange(len(ODDS)) > 0)[:, None]
    best = np.where(others > 0, CONFIDENCE, np.float32(1))
    rest = ODDS[:, None] * np.where(speaks, (1 - best) / np.maximum(others, 1), 1 / (others + 1))
    more = np.where(speaks, ODDS[:, None] * best - rest, 0)
    return rest.reshape(257, -1).astype(np.float32), more.reshape(257, -1).astype(np.float32)


_TABLES = _tables()
