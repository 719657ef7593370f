"""A rendered road seen from above, with a known number of vehicles; frame by frame, or written as a video.

Light, camera noise, shadows and auto-exposure can be set, so that counting can be held against the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from devices.opencv import opencv
from edge_protocol.errors import StoreError

U1 = npt.NDArray[np.uint8]
_ASPHALT = 105


@dataclass(frozen=True)
class Passing:
    """One vehicle on its way; lengths in pixels.

    Attributes:
        first: frame in which its front reaches the picture.
        x: its left side.
        speed: pixels a frame, positive downwards.
        length, width: its size.
        colour: RGB.
    """

    first: int
    x: int
    speed: float
    length: int
    width: int
    colour: tuple[int, int, int]


@dataclass(frozen=True)
class Scene:
    """A fixed camera over a road.

    Attributes:
        passings: the vehicles.
        height, width: of the picture.
        noise: standard deviation of the sensor's noise.
        shadow: pixels that a vehicle's shadow reaches to its right; 0 for a cloudy day.
        gain: exposure by frame number.
        seed: of road texture and noise.
    """

    passings: tuple[Passing, ...]
    height: int = 240
    width: int = 320
    noise: float = 2.0
    shadow: int = 0
    gain: Callable[[int], float] = lambda _: 1.0
    seed: int = 0

    def frames(self, count: int) -> Iterator[U1]:
        """The first `count` frames, (height, width, 3) uint8 RGB."""
        rng = np.random.default_rng(self.seed)
        road = self._road(rng)
        for number in range(count):
            picture = road.copy()
            for passing in self.passings:
                self._draw(picture, passing, number)
            picture *= np.float32(self.gain(number))
            picture += np.float32(self.noise) * rng.standard_normal(picture.shape, np.float32)
            yield np.clip(picture, 0, 255).astype(np.uint8)

    def truth(self) -> dict[str, int]:
        """How many vehicles cross the picture downwards (``forward``) and upwards (``backward``)."""
        down = sum(passing.speed > 0 for passing in self.passings)
        return {"forward": down, "backward": len(self.passings) - down}

    def _road(self, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        cv2 = opencv()
        coarse = rng.normal(_ASPHALT, 8, (self.height // 8, self.width // 8)).astype(np.float32)
        fine = rng.normal(0, 4, (self.height, self.width)).astype(np.float32)
        grey = cv2.resize(coarse, (self.width, self.height)) + fine
        for y in range(0, self.height, 40):
            grey[y : y + 20, self.width // 2 - 2 : self.width // 2 + 2] = 200
        return np.repeat(grey[:, :, None], 3, axis=2)

    def _draw(self, picture: npt.NDArray[np.float32], passing: Passing, number: int) -> None:
        gone = passing.speed * (number - passing.first)
        top = round(gone - passing.length if passing.speed > 0 else self.height + gone)
        low, high = max(0, top), min(self.height, top + passing.length)
        if number < passing.first or low >= high:
            return
        right = passing.x + passing.width
        picture[low:high, right : right + self.shadow] *= 0.6
        picture[low:high, passing.x : right] = passing.colour
        glass = top + round(passing.length * (0.7 if passing.speed > 0 else 0.2))
        inset = max(1, passing.width // 8)
        picture[max(0, glass) : max(0, glass + passing.length // 8), passing.x + inset : right - inset] = (45, 50, 60)


def busy_scene(*, vehicles: int = 12, seed: int = 0) -> Scene:
    """Vehicles of several sizes and colours in two lanes each way, spaced so that a person can count them."""
    rng = np.random.default_rng(seed)
    passings: list[Passing] = []
    speeds = rng.uniform(5, 8, 4)  # one per lane, and never the same lane twice in a row: nobody catches up
    lane = 0
    for i in range(vehicles):
        lane = (lane + int(rng.integers(1, 4))) % 4
        long = bool(rng.random() < 0.25)  # noqa: PLR2004
        passings.append(
            Passing(
                first=30 + i * 22,
                x=14 + lane * 78 + int(rng.integers(0, 10)),
                speed=float(speeds[lane]) * (1 if lane < 2 else -1),  # noqa: PLR2004
                length=110 if long else int(rng.integers(55, 75)),
                width=44 if long else int(rng.integers(30, 38)),
                colour=_PAINTS[int(rng.integers(len(_PAINTS)))],
            )
        )
    return Scene(tuple(passings), shadow=8, gain=lambda number: 1 + 0.15 * np.sin(number / 40), seed=seed)


def write_clip(path: Path, scene: Scene, frames: int, *, fps: float = 25.0) -> None:
    """Write a scene as an MPEG-4 video.

    Raises:
        StoreError: the file cannot be written.
    """
    cv2 = opencv()
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, (scene.width, scene.height))
    if not writer.isOpened():
        raise StoreError(f"{path}: a video cannot be written here; check the folder, space and permissions")
    try:
        for frame in scene.frames(frames):
            writer.write(np.ascontiguousarray(frame[:, :, ::-1]))
    finally:
        writer.release()


_PAINTS = ((225, 225, 228), (40, 42, 46), (160, 35, 35), (40, 65, 150), (205, 175, 60), (60, 110, 70))
