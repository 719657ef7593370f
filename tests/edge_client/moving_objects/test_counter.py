"""Counting: exact on rendered scenes under light, shadow and noise, and equal to a person's count on the real clip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from math import inf
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from devices.sources import open_source
from edge_client.moving_objects import Crossing, Line, MovingObjects, MovingObjectsConfig
from edge_client.moving_objects.counter import crop, is_whole
from roadcast.simulated.road import Passing, Scene, busy_scene

U1 = npt.NDArray[np.uint8]
HEIGHTS = (0.3, 0.5, 0.7)
CONFIG = MovingObjectsConfig(lines=tuple(Line(f"y{y}", (0.0, y), (1.0, y)) for y in HEIGHTS))
SCENE = busy_scene(seed=1)


def by_colour(crops: list[U1]) -> npt.NDArray[np.float32]:
    """A classifier that is right by construction: red in the middle, or not."""
    middles = [c[len(c) // 3 : -len(c) // 3, c.shape[1] // 3 : -c.shape[1] // 3].astype(int) for c in crops]
    red = [bool(np.median(np.ptp(middle, axis=2)) > 60) for middle in middles]
    return np.array([(0.9, 0.1) if is_red else (0.1, 0.9) for is_red in red], np.float32)


def count(
    frames: Iterable[U1], config: MovingObjectsConfig = CONFIG, fps: float = 25.0
) -> tuple[Counter[str], MovingObjects]:
    """Crossings by line and direction."""
    counter = MovingObjects(config, by_colour, ("painted", "grey"))
    crossings = [crossing for i, frame in enumerate(frames) for crossing in counter.frame(frame, i / fps)]
    return Counter(f"{crossing.line} {crossing.direction}" for crossing in crossings), counter


def expected(truth: dict[str, int]) -> dict[str, int]:
    """The truth at every line."""
    return {f"y{y} {way}": number for y in HEIGHTS for way, number in truth.items() if number}


def exposure_steps(number: int) -> float:
    """An auto-exposure that jumps every 60 frames, by up to a factor of 2.3."""
    return (1.0, 0.6, 1.4, 0.8, 1.2)[number // 60 % 5]


@pytest.mark.parametrize(
    "scene",
    [
        pytest.param(replace(SCENE, shadow=0, gain=lambda _: 1.0), id="plain"),
        pytest.param(SCENE, id="drifting light and shadows"),
        pytest.param(replace(SCENE, gain=exposure_steps), id="exposure steps"),
        pytest.param(replace(SCENE, shadow=25), id="long shadows"),
        pytest.param(replace(SCENE, noise=15.0), id="noise of a dark night"),
    ],
)
def test_rendered_scenes_are_counted_exactly(scene: Scene) -> None:
    """Twelve vehicles are twelve at each of three lines, each in its direction."""
    assert count(scene.frames(400))[0] == expected(scene.truth())


def test_an_empty_road_counts_nothing() -> None:
    """Light that jumps over an empty road is no vehicle."""
    counts, counter = count(Scene((), gain=exposure_steps, noise=6.0).frames(300))
    assert counts == {}
    assert counter.tracks.active == []


def test_real_clip_equals_the_hand_count(real_data: Path) -> None:
    """A person sees four cars on the real clip: two go down, two go up; white ones halve the camera's exposure.

    Every frame with a car was looked at; each car passes every line between 20 % and 80 % of the height, so there is
    nothing to tolerate: the counts must be equal.
    """
    frames = []
    with open_source(f"file://{real_data}/intel_car_detection.mp4", name="road", rate_hz=inf) as source:
        while not source.ended:
            frame = source.read(5.0)
            if frame is not None and frame.image is not None:
                frames.append(frame.image)
    hand = {"forward": 2, "backward": 2}
    assert count(frames, fps=12.5)[0] == expected(hand)
    assert count(frames[::3], fps=12.5 / 3)[0] == expected(hand), "with two of three frames lost"
    assert count([np.ascontiguousarray(f[::-1]) for f in frames], fps=12.5)[0] == expected(hand), "upside down"


def test_a_camera_that_is_turned_counts_nothing() -> None:
    """A sudden change of the whole picture resets the background and the tracks, and counting goes on after it."""
    frames = list(SCENE.frames(400))
    turned = [
        np.ascontiguousarray(f[:, ::-1] // 3 + 120 * (np.indices(f.shape[:2]).sum(0) // 16 % 2)[..., None])
        for f in frames
    ]
    turned = [np.clip(f, 0, 255).astype(np.uint8) for f in turned]
    before = count(frames[:100])[0]
    counts, counter = count(frames[:100] + turned[100:104] + [turned[104]] * 30)
    assert counter.background.resets == 1
    assert counts == before


def test_another_picture_size_starts_anew() -> None:
    """A camera that changes its resolution is a new camera."""
    frames = list(Scene(()).frames(12))
    counts, counter = count([*frames, *(cv2.resize(f, (200, 180)) for f in frames)])
    assert counts == {}
    assert counter.background.resets == 1


def test_votes_name_the_vehicle() -> None:
    """Each crossing carries what its track's crops were voted to be, and each track is one vehicle."""
    cars = (Passing(30, 40, 6, 60, 34, (170, 30, 30)), Passing(60, 200, -6, 60, 34, (150, 150, 150)))
    counter = MovingObjects(CONFIG, by_colour, ("painted", "grey"))
    frames = enumerate(Scene(cars).frames(160))
    crossings: list[Crossing] = [c for i, frame in frames for c in counter.frame(frame, i / 25)]
    assert {(c.direction, c.label) for c in crossings} == {("forward", "painted"), ("backward", "grey")}
    assert len({c.track for c in crossings}) == 2
    assert all(30 / 25 < c.at_s < 160 / 25 for c in crossings)


def test_classification_is_bounded() -> None:
    """A track is classified a bounded number of times, however long it stays."""
    seen = []

    def classify(crops: list[U1]) -> npt.NDArray[np.float32]:
        seen.extend(crops)
        return by_colour(crops)

    config = MovingObjectsConfig(lines=CONFIG.lines, votes=4)
    counter = MovingObjects(config, classify, ("painted", "grey"))
    for i, frame in enumerate(Scene((Passing(20, 100, 2, 60, 34, (170, 30, 30)),)).frames(150)):
        counter.frame(frame, i / 25)
    assert len(seen) == 4
    assert all(c.shape[0] == c.shape[1] for c in seen)


def test_time_that_runs_back_is_held() -> None:
    """A clock that is set back does not break a track."""
    counter = MovingObjects(CONFIG, by_colour, ("painted", "grey"))
    times = [i / 25 if i < 50 else (i - 40) / 25 for i in range(120)]
    frames = zip(Scene((Passing(20, 100, 4, 60, 34, (170, 30, 30)),)).frames(120), times, strict=True)
    crossings = [c for frame, at_s in frames for c in counter.frame(frame, at_s)]
    assert {c.direction for c in crossings} <= {"forward"}
    assert [c.at_s for c in crossings] == sorted(c.at_s for c in crossings)


def test_crops_stay_in_the_picture() -> None:
    """A crop is a square with context, moved into the picture, and cut only where the picture is too small."""
    image = np.zeros((40, 100, 3), np.uint8)
    assert crop(image, np.array([0.4, 0.25, 0.5, 0.5])).shape == (12, 12, 3)
    assert crop(image, np.array([0.0, 0.0, 0.1, 0.25])).shape == (12, 12, 3)
    assert crop(image, np.array([0.95, 0.9, 1.2, 1.3])).shape == (29, 29, 3)
    assert crop(image, np.array([0.0, 0.0, 1.0, 1.0])).shape == (40, 100, 3)
    assert crop(image, np.array([0.5, 0.5, 0.5, 0.5])).shape == (1, 1, 3)
    assert is_whole(np.array([0.1, 0.1, 0.9, 0.9]))
    assert not is_whole(np.array([0.0, 0.1, 0.9, 0.9]))
