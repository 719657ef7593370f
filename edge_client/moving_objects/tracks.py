"""Which box of this frame is which object of the last: constant velocity and greedy overlap. Pure; time is an argument.

Prediction is an alpha-beta filter (Benedict and Bordner 1962), association is greedy on intersection over union
(Bochinski et al. 2017) and then on distance. A piece of a known object starts no track of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edge_client.moving_objects.config import MovingObjectsConfig, Point
from edge_client.moving_objects.lines import LineMemory

F8 = npt.NDArray[np.float64]
_ALPHA, _BETA = 0.7, 0.3
_MIN_OVERLAP = 0.15
_MAX_JUMP = 0.6
_PIECE = 0.7
_MIN_STEP_S = 1e-3


@dataclass
class Track:
    """One object on its way through the picture.

    Attributes:
        number: its name.
        box: (4,) left, top, right, bottom, relative to the picture.
        speed: (4,) change of the box per second.
        seen_s: when it was last seen.
        hits: how often.
        lines: what it did at the lines.
        probabilities: (C,) sum over its classified crops.
        votes: how many crops that are.
    """

    number: int
    box: F8
    seen_s: float
    speed: F8 = field(default_factory=lambda: np.zeros(4))
    hits: int = 1
    lines: LineMemory = field(default_factory=LineMemory)
    probabilities: npt.NDArray[np.float32] | None = None
    votes: int = 0

    @property
    def centre(self) -> Point:
        """(x, y) of the middle of its box."""
        return float(self.box[0] + self.box[2]) / 2, float(self.box[1] + self.box[3]) / 2

    def size(self, aspect: float) -> float:
        """Its longer side, in picture widths."""
        return float(max(self.box[2] - self.box[0], (self.box[3] - self.box[1]) * aspect))

    def predicted(self, at_s: float) -> F8:
        """(4,) where its box should be."""
        return self.box + self.speed * (at_s - self.seen_s)

    def see(self, box: F8, at_s: float) -> None:
        """It was found at `box`."""
        step_s = max(at_s - self.seen_s, _MIN_STEP_S)
        expected = self.predicted(at_s)
        error = box - expected
        if self.hits == 1:
            self.box, self.speed = box, error / step_s
        else:
            self.box, self.speed = expected + _ALPHA * error, self.speed + _BETA * error / step_s
        self.seen_s = at_s
        self.hits += 1


class Tracks:
    """All objects in the picture.

    Attributes:
        active: the tracks, oldest first.
        dropped: boxes for which there was no room.
    """

    def __init__(self, config: MovingObjectsConfig) -> None:
        self._config = config
        self.active: list[Track] = []
        self.dropped = 0
        self._numbers = 0

    def clear(self) -> None:
        """Forget all objects; numbers are not used again."""
        self.active = []

    def see(self, found: F8, at_s: float) -> list[Track]:
        """Take in the boxes of one frame; the tracks that were seen in it.

        Args:
            found: (N, 4) left, top, right, bottom, relative to the picture; the largest first.
            at_s: when; must not run backwards.
        """
        self.active = [track for track in self.active if at_s - track.seen_s <= self._config.max_missed_s]
        expected = np.array([track.predicted(at_s) for track in self.active]).reshape(-1, 4)
        pairs = associate(expected, found)
        free = set(range(len(found))) - {box for _, box in pairs}
        merged = {box: found[box] for _, box in pairs}
        for track, box in pairs:
            for piece in [i for i in free if _inside(found[i], expected[track]) >= _PIECE]:
                merged[box] = _around(merged[box], found[piece])
                free.discard(piece)
        seen = []
        for track, box in pairs:
            self.active[track].see(merged[box], at_s)
            seen.append(self.active[track])
        known = [merged[box] for box in merged]
        for box in sorted(free):
            if all(_inside(found[box], other) < _PIECE for other in known):
                self._begin(found[box], at_s)
        return seen

    def _begin(self, box: F8, at_s: float) -> None:
        if len(self.active) >= self._config.max_tracks:
            self.dropped += 1
            return
        self._numbers += 1
        self.active.append(Track(self._numbers, box, at_s))


def associate(expected: F8, found: F8) -> list[tuple[int, int]]:
    """Pairs of (expected, found), each used once: best overlap first, then the nearest within reach.

    Args:
        expected: (T, 4) boxes.
        found: (N, 4) boxes.
    """
    if not len(expected) or not len(found):
        return []
    overlap = _overlaps(expected, found)
    centres = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (expected, found)]
    distance = np.linalg.norm(centres[0][:, None] - centres[1][None], axis=2)
    size = np.linalg.norm(expected[:, 2:] - expected[:, :2], axis=1)
    near = 1 - distance / (_MAX_JUMP * np.maximum(size, 1e-6))[:, None]
    score = np.where(overlap >= _MIN_OVERLAP, 1 + overlap, near)
    pairs: list[tuple[int, int]] = []
    rows, columns = set(range(len(expected))), set(range(len(found)))
    for flat in np.argsort(-score, axis=None, kind="stable"):
        row, column = divmod(int(flat), len(found))
        if score[row, column] <= 0:
            break
        if row in rows and column in columns:
            rows.remove(row)
            columns.remove(column)
            pairs.append((row, column))
    return pairs


def _overlaps(first: F8, second: F8) -> F8:
    """(T, N) intersection over union."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1) for boxes in (first, second)]
    overlap: F8 = shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-12)
    return overlap


def _inside(box: F8, other: F8) -> float:
    """The part of `box` that lies in `other`."""
    sides = np.clip(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None)
    return float(np.prod(sides) / max(float(np.prod(box[2:] - box[:2])), 1e-12))


def _around(box: F8, other: F8) -> F8:
    """The smallest box around both."""
    return np.concatenate([np.minimum(box[:2], other[:2]), np.maximum(box[2:], other[2:])])
