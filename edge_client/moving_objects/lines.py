"""When a track has crossed a line, and which way. Pure.

A track stands on one side of a line until it is a margin beyond it on the other: trembling on the line counts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import hypot
from typing import Literal

from edge_client.moving_objects.config import Line, Point

Direction = Literal["forward", "backward"]


@dataclass(frozen=True)
class Crossing:
    """One object crossed one line.

    Attributes:
        line: name of the line.
        direction: ``forward`` from its left to its right, seen from its beginning; else ``backward``.
        label: what the object is.
        at_s: when, seconds since the epoch.
        track: number of the track.
    """

    line: str
    direction: Direction
    label: str
    at_s: float
    track: int


@dataclass
class LineMemory:
    """What one track has done at the lines so far."""

    _sides: dict[str, bool] = field(default_factory=dict)
    _places: dict[str, float] = field(default_factory=dict)
    _counted: dict[str, set[Direction]] = field(default_factory=dict)

    def crossed(self, line: Line, at: Point, aspect: float, margin: float, back: float) -> Direction | None:
        """The direction in which the line was crossed just now, for the first time by this track.

        Args:
            line: the line.
            at: (x, y) of the track, relative to the picture.
            aspect: height over width of the picture.
            margin: distance from the line, relative to the width, at which a side is believed.
            back: the same once the track was counted here: its own size, so that a changing outline is no return.
        """
        ahead, beside = _place(line, at, aspect)
        if abs(beside) < (back if line.name in self._counted else margin):
            return None
        right, was_right = beside > 0, self._sides.get(line.name)
        between = (ahead + self._places.get(line.name, ahead)) / 2
        self._sides[line.name], self._places[line.name] = right, ahead
        if was_right is None or was_right == right or not 0 <= between <= 1:
            return None
        direction: Direction = "forward" if right else "backward"
        counted = self._counted.setdefault(line.name, set())
        if direction in counted:
            return None
        counted.add(direction)
        return direction


def _place(line: Line, at: Point, aspect: float) -> tuple[float, float]:
    """How far along the line (0 at its beginning, 1 at its end), and how far to its right in picture widths."""
    along_x, along_y = line.end[0] - line.start[0], (line.end[1] - line.start[1]) * aspect
    to_x, to_y = at[0] - line.start[0], (at[1] - line.start[1]) * aspect
    length = hypot(along_x, along_y)
    # The y axis of a picture points down, so a positive cross product is to the right of the line.
    return (to_x * along_x + to_y * along_y) / length**2, (along_x * to_y - along_y * to_x) / length
