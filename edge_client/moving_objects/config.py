"""What an installer may set about moving objects; lengths are relative to the picture, so they survive a new camera."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from edge_protocol.errors import ConfigError

Part = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=1, le=10_000)]
Point = tuple[Part, Part]


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A counting line, from one point to another.

    Who crosses from its left to its right, seen from its beginning towards its end, goes ``forward``; the others go
    ``backward``. A line from the left edge to the right edge of the picture: downwards is ``forward``.

    Attributes:
        name: its name in results.
        start: (x, y), 0 to 1 from the upper left corner of the picture; ``from`` in YAML.
        end: the same; ``to`` in YAML.
    """

    name: str
    start: Point = msgspec.field(name="from")
    end: Point = msgspec.field(name="to")

    def __post_init__(self) -> None:
        if self.start == self.end:
            raise ConfigError(f"line {self.name!r}: 'from' and 'to' are the same point")


class MovingObjectsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How moving objects are found, followed and counted.

    Attributes:
        lines: where to count.
        size: pixels of the longer side to which pictures are shrunk to find motion; classification sees them in full.
        history: frames over which the background is learned.
        contrast: squared distance, in spreads of the background, from which a pixel is foreground.
        min_area, max_area: part of the picture that an object covers.
        warmup: frames after a start or a sudden change of the whole picture during which nothing is counted.
        sudden: part of the picture that turns foreground from one frame to the next when it is the light or the
            camera that changed, not an object.
        min_hits: sightings before a track is believed.
        max_missed_s: seconds without a sighting after which a track has left.
        max_tracks: tracks followed at a time; beyond it the smallest are not followed.
        votes: crops of a track that are classified at most.
        margin: part of the picture's width by which a track must leave a line behind.
    """

    lines: tuple[Line, ...] = ()
    size: Annotated[int, Meta(ge=64, le=1280)] = 192
    history: Count = 500
    contrast: Annotated[float, Meta(gt=0)] = 30.0
    min_area: Part = 0.003
    max_area: Part = 0.6
    warmup: Count = 8
    sudden: Part = 0.4
    min_hits: Count = 3
    max_missed_s: Annotated[float, Meta(gt=0, le=60)] = 0.8
    max_tracks: Annotated[int, Meta(ge=1, le=256)] = 32
    votes: Annotated[int, Meta(ge=1, le=100)] = 9
    margin: Part = 0.01

    def __post_init__(self) -> None:
        names = [line.name for line in self.lines]
        if len(set(names)) < len(names):
            raise ConfigError("moving objects: two lines have the same name")
        if self.min_area >= self.max_area:
            raise ConfigError("moving objects: min_area must be below max_area")
