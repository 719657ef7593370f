"""Tracks, lines and configuration, without a picture."""

from __future__ import annotations

import numpy as np
import pytest

from edge_client.moving_objects import Line, MovingObjectsConfig
from edge_client.moving_objects.lines import LineMemory
from edge_client.moving_objects.tracks import Tracks, associate
from edge_protocol.config import load_config
from edge_protocol.errors import ConfigError

DOWN = Line("a", (0.0, 0.5), (1.0, 0.5))


def box(x: float, y: float, size: float = 0.1) -> list[float]:
    """A square box around a point."""
    return [x - size / 2, y - size / 2, x + size / 2, y + size / 2]


def found(*boxes: list[float]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Boxes of one frame."""
    return np.array(boxes).reshape(-1, 4)


def test_a_track_survives_lost_frames() -> None:
    """An object that is not seen for a moment keeps its number; one that is gone for long does not."""
    tracks = Tracks(MovingObjectsConfig(max_missed_s=0.5))
    for i in range(5):
        tracks.see(found(box(0.1 + 0.03 * i, 0.5)), i / 10)
    tracks.see(found(), 0.5)
    (again,) = tracks.see(found(box(0.31, 0.5)), 0.7)
    assert (again.number, again.hits) == (1, 6)
    assert tracks.see(found(box(0.4, 0.5)), 2.0) == []
    assert [track.number for track in tracks.active] == [2]
    tracks.clear()
    assert tracks.active == []


def test_passing_objects_keep_their_numbers() -> None:
    """Two objects that pass each other are not swapped."""
    tracks = Tracks(MovingObjectsConfig())
    for i in range(20):
        tracks.see(found(box(0.1 + 0.04 * i, 0.45), box(0.9 - 0.04 * i, 0.56)), i / 10)
    assert [track.number for track in tracks.active] == [1, 2]
    assert tracks.active[0].centre[0] > 0.8
    assert tracks.active[1].centre[0] < 0.2


def test_pieces_are_joined() -> None:
    """When an object falls apart, its pieces stay one track, and a piece inside it starts none."""
    tracks = Tracks(MovingObjectsConfig())
    for i in range(3):
        tracks.see(found(box(0.5, 0.5, 0.3)), i / 10)
    (whole,) = tracks.see(found([0.35, 0.35, 0.65, 0.52], [0.4, 0.56, 0.6, 0.64]), 0.3)
    assert whole.box[3] > 0.6
    assert len(tracks.active) == 1


def test_numbers_of_tracks_are_bounded() -> None:
    """Beyond the limit new objects are counted as dropped, not followed."""
    tracks = Tracks(MovingObjectsConfig(max_tracks=2))
    tracks.see(found(box(0.1, 0.1), box(0.5, 0.5), box(0.9, 0.9)), 0.0)
    assert len(tracks.active) == 2
    assert tracks.dropped == 1


def test_association_without_either_side() -> None:
    """Nothing goes with nothing, and far boxes do not go together."""
    assert associate(found(), found(box(0.5, 0.5))) == []
    assert associate(found(box(0.5, 0.5)), found()) == []
    assert associate(found(box(0.1, 0.1)), found(box(0.9, 0.9))) == []
    assert associate(found(box(0.1, 0.1)), found(box(0.15, 0.1, 0.05))) == [(0, 0)]


def walk(line: Line, *points: tuple[float, float]) -> list[str | None]:
    """What a track does at a line along its way."""
    memory = LineMemory()
    return [memory.crossed(line, point, 0.5, 0.01, 0.2) for point in points]


def test_directions() -> None:
    """Downwards over a line from left to right is forward, upwards is backward."""
    assert walk(DOWN, (0.5, 0.2), (0.5, 0.8)) == [None, "forward"]
    assert walk(DOWN, (0.5, 0.8), (0.5, 0.2)) == [None, "backward"]
    up = Line("b", (0.5, 1.0), (0.5, 0.0))
    assert walk(up, (0.2, 0.5), (0.8, 0.5)) == [None, "forward"]


def test_trembling_on_the_line_counts_once() -> None:
    """A track that trembles on the line is counted once; a real return counts once, the other way."""
    assert walk(DOWN, (0.5, 0.4), (0.5, 0.51), (0.5, 0.53), (0.5, 0.47), (0.5, 0.53)) == [
        None,
        None,
        "forward",
        None,
        None,
    ]
    there_and_back = ((0.5, 0.05), (0.5, 0.95), (0.5, 0.05), (0.5, 0.95))
    assert walk(DOWN, *there_and_back) == [None, "forward", "backward", None]


def test_beside_the_line_counts_nothing() -> None:
    """Only the drawn piece counts, not the line that it lies on."""
    short = Line("c", (0.4, 0.5), (0.6, 0.5))
    assert walk(short, (0.1, 0.2), (0.1, 0.8)) == [None, None]
    assert walk(short, (0.5, 0.2), (0.5, 0.8)) == [None, "forward"]


def test_configuration() -> None:
    """Lines are read as installers write them, and nonsense is refused by name."""
    text = "lines: [{name: a, from: [0.0, 0.5], to: [1.0, 0.5]}]"
    assert load_config(text, MovingObjectsConfig, where="x").lines == (DOWN,)
    for wrong, message in {
        "lines: [{name: a, from: [0, 0.5], to: [0, 0.5]}]": "same point",
        "lines: [{name: a, from: [0, 0], to: [0, 1]}, {name: a, from: [0, 0], to: [1, 1]}]": "same name",
        "lines: [{name: a, from: [0, 0], to: [0, 7]}]": "<= 1",
        "{min_area: 0.5, max_area: 0.4}": "min_area must be below max_area",
    }.items():
        with pytest.raises(ConfigError, match=message):
            load_config(wrong, MovingObjectsConfig, where="x")
