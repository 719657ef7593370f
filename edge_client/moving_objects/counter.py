"""From frames to counts: background, boxes, tracks, votes, lines; one frame at a time, time is an argument."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from edge_client.moving_objects.background import Background, boxes
from edge_client.moving_objects.config import MovingObjectsConfig
from edge_client.moving_objects.lines import Crossing, Direction
from edge_client.moving_objects.tracks import F8, Track, Tracks

U1 = npt.NDArray[np.uint8]
F4 = npt.NDArray[np.float32]
Classify = Callable[[list[U1]], F4]
"""Crops, each (H, W, 3) uint8 RGB of its own size → (N, C) float32 probabilities."""
_CONTEXT = 1.15
_EDGE = 0.01


class MovingObjects:
    """Counts classified objects at lines, each once per line and direction.

    Attributes:
        tracks: the objects in the picture now.
        background: the background model.
    """

    def __init__(self, config: MovingObjectsConfig, classify: Classify, classes: Sequence[str]) -> None:
        self.config = config
        self.tracks = Tracks(config)
        self.background = Background(config)
        self._classify = classify
        self._classes = tuple(classes)
        self._last_s = -np.inf
        self._resets = 0

    def frame(self, image: U1, at_s: float) -> list[Crossing]:
        """Take in one frame; what crossed a line in it.

        Args:
            image: (H, W, 3) uint8 RGB; no black or frozen frame (those are missing, see `devices.sources`).
            at_s: when it was taken, seconds since the epoch; a frame older than the last is taken for simultaneous.
        """
        at_s = self._last_s = max(at_s, self._last_s)
        found = boxes(self.background.foreground(image), self.config)
        if self.background.resets != self._resets:
            self._resets = self.background.resets
            self.tracks.clear()
        seen = [track for track in self.tracks.see(found, at_s) if track.hits >= self.config.min_hits]
        aspect = image.shape[0] / image.shape[1]
        crossed = [(track, line, way) for track in seen for line, way in self._crossed(track, aspect)]
        self._vote(image, seen, {track.number for track, _, _ in crossed})
        return [Crossing(line, way, self._label(track), at_s, track.number) for track, line, way in crossed]

    def _crossed(self, track: Track, aspect: float) -> list[tuple[str, Direction]]:
        margin = self.config.margin
        back = max(margin, track.size(aspect) / 2)
        ways = (
            (line.name, track.lines.crossed(line, track.centre, aspect, margin, back)) for line in self.config.lines
        )
        return [(name, way) for name, way in ways if way is not None]

    def _vote(self, image: U1, seen: list[Track], urgent: set[int]) -> None:
        """Classify the tracks that have votes left and stand whole in the picture, or have crossed without any."""
        chosen = [
            track
            for track in seen
            if (track.votes < self.config.votes and is_whole(track.box)) or (track.number in urgent and not track.votes)
        ]
        if not chosen:
            return
        for track, row in zip(chosen, self._classify([crop(image, track.box) for track in chosen]), strict=True):
            track.probabilities = row.copy() if track.probabilities is None else track.probabilities + row
            track.votes += 1

    def _label(self, track: Track) -> str:
        assert track.probabilities is not None
        return self._classes[int(np.argmax(track.probabilities))]


def is_whole(box: F8) -> bool:
    """Whether a box touches no edge of the picture."""
    return bool(box.min() > _EDGE and box.max() < 1 - _EDGE)


def crop(image: U1, box: F8) -> U1:
    """A square around a box, with some context, moved into the picture and cut where the picture is smaller.

    Args:
        image: (H, W, 3) uint8.
        box: (4,) left, top, right, bottom, relative to the picture.

    Returns:
        (h, w, 3) uint8, at least one pixel.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = box * (width, height, width, height)
    side = max(1, round(_CONTEXT * max(right - left, bottom - top)))
    x = _start((left + right) / 2, side, width)
    y = _start((top + bottom) / 2, side, height)
    return np.ascontiguousarray(image[y : y + side, x : x + side])


def _start(middle: float, side: int, length: int) -> int:
    return max(0, min(round(middle - side / 2), length - side))
