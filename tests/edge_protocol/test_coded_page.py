"""Section 11 of the wire format is enough: a reader written from that page alone reads what we write."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from edge_protocol.arrays import unpack
from edge_protocol.vote_codec import encode_votes
from edge_protocol.votes import ClassVotes, ForecastVotes, levels_of_votes
from tests.edge_protocol.test_vote_codec import class_votes, forecast_votes

Row = list[int]


class PageReader:
    """The reader of section 11, in its own words and without any of our code."""

    def __init__(self, data: bytes) -> None:
        self.rest = [*data, 0, 0, 0]
        self.range, self.point = 2**32 - 1, 0
        for _ in range(4):
            self.point = self.point * 256 + self.rest.pop(0)
        self.n: dict[int, Row] = defaultdict(lambda: [8, 8])

    def decision(self, k: int) -> int:
        """One decision in context k."""
        n = self.n[k]
        split = self.range // (n[0] + n[1]) * n[0]
        b = int(self.point >= split)
        if b:
            self.point, self.range = self.point - split, self.range - split
        else:
            self.range = split
        while self.range < 2**24:
            self.point, self.range = self.point * 256 + self.rest.pop(0), self.range * 256
        n[b] += 16
        if sum(n) > 1536:
            self.n[k] = [(each + 1) // 2 for each in n]
        return b

    def tree(self, m: int, k: int) -> int:
        """A tree of m decisions."""
        node = 1
        for _ in range(m):
            node = 2 * node + self.decision(k + node)
        return node - (1 << m)

    def classes(self, samples: int, outputs: int, base: list[Row] | None, held: Row | None) -> tuple[Row, list[Row]]:
        """Held classes, and a row of class, confidence and density for each sample."""
        found = [self.decision(492 + (held[c] if held else 2)) for c in range(outputs)]
        rows = []
        for sample in range(samples):
            c, f, d = base[sample] if base else (0, 0, 0)
            density = self.tree(3, 8 * d if base else 64)
            name = sure = 0
            if density:
                g = 4
                if base and d > 0 and self.decision(232 + f):
                    name, g = c, f
                else:
                    name = self.tree((outputs - 1).bit_length(), 236)
                sure = self.tree(2, 72 + 4 * (8 * g + density))
            rows.append([name, sure, density])
        return found, rows

    def forecasts(self, samples: int, horizons: int, base: list[list[Row]] | None) -> list[Row]:
        """A row of levels of the means and of the spreads for each sample."""
        rows = []
        for sample in range(samples):
            row: Row = []
            for which in (0, 1):
                step = level = 0
                for h in range(horizons):
                    near = base[which][sample][h] if base else level
                    step = self.step(39 * min(abs(step).bit_length(), 3) + 156 * which)
                    level = near + step
                    row.append(level)
            rows.append(row)
        return rows

    def step(self, k: int) -> int:
        """A whole number."""
        n = 0
        while n < 12 and self.decision(k + n):
            n += 1
        if not n:
            return 0
        negative, size = self.decision(k + 12), 1
        for digit in range(n - 1):
            size = 2 * size + self.decision(k + (26 if digit == 0 else 13) + n)
        return -size if negative else size


def columns(votes: ClassVotes) -> list[Row]:
    """A row of class, confidence and density for each sample."""
    rows: list[Row] = np.stack([unpack(each) for each in (votes.classes, votes.confidence, votes.density)], 1).tolist()
    return rows


@pytest.mark.parametrize("base", [None, class_votes(3, 300, 6)])
def test_class_votes_are_read_as_the_page_says(base: ClassVotes | None) -> None:
    """Alone and beside a base."""
    votes = class_votes(4, 300, 6)
    reader = PageReader(encode_votes(votes, base, 1).data)
    held, rows = reader.classes(300, 6, columns(base) if base else None, list(base.held.data) if base else None)
    assert (held, rows, reader.rest) == (list(votes.held.data), columns(votes), [])


@pytest.mark.parametrize("base", [None, forecast_votes(3, 60, 3)])
def test_forecasts_are_read_as_the_page_says(base: ForecastVotes | None) -> None:
    """Alone and beside a base."""
    votes = forecast_votes(4, 60, 3)
    reader = PageReader(encode_votes(votes, base, 1).data)
    levels = [each.tolist() for each in levels_of_votes(base)] if base else None
    rows = reader.forecasts(60, 3, levels)
    mean, spread = levels_of_votes(votes)
    expected = np.concatenate([mean, spread], axis=1).tolist()
    assert (rows, reader.rest) == (expected, [])
