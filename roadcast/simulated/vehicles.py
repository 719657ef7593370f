"""Rendered vehicle crops of six classes, as a roadside camera sees them from the side; deterministic by seed.

A vehicle is a list of polygons and wheels in its own coordinates (metres, x forward, y up). Pose, size, colour, light,
road, blur and noise vary from picture to picture, and classes share colours, windows and wheels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from devices.opencv import opencv
from devices.packs import ImagePack

U1 = npt.NDArray[np.uint8]
F8 = npt.NDArray[np.float64]
Polygon = tuple[tuple[float, float], ...]

_FINER = 3
_TEST_SHARE = 0.2
_GLASS, _RUBBER = (40, 48, 58), (28, 28, 30)
_PAINTS = np.array(
    [
        (225, 225, 228),
        (150, 154, 160),
        (40, 42, 46),
        (150, 30, 35),
        (35, 60, 130),
        (200, 170, 60),
        (50, 95, 60),
        (90, 70, 55),
    ]
)


@dataclass(frozen=True)
class Shape:
    """One kind of vehicle: painted parts, a second colour, windows, wheels (x, radius), all in metres."""

    length: float
    paint: tuple[Polygon, ...]
    second: tuple[Polygon, ...]
    glass: tuple[Polygon, ...]
    wheels: tuple[tuple[float, float], ...]


def _box(left: float, low: float, right: float, high: float) -> Polygon:
    return ((left, low), (right, low), (right, high), (left, high))


def _windows(left: float, right: float, low: float, high: float, count: int) -> tuple[Polygon, ...]:
    wide = (right - left) / count
    return tuple(_box(left + i * wide + 0.06, low, left + (i + 1) * wide - 0.06, high) for i in range(count))


SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        "bike": Shape(
            2.0,
            (((0.5, 0.6), (1.5, 0.65), (1.4, 0.95), (0.7, 0.95)),),
            (((0.7, 0.9), (1.15, 0.95), (1.3, 1.55), (0.95, 1.6)), _box(0.98, 1.58, 1.28, 1.9)),
            (),
            ((0.35, 0.33), (1.65, 0.33)),
        ),
        "car": Shape(
            4.3,
            (
                ((0.0, 0.35), (4.3, 0.35), (4.25, 0.75), (3.2, 0.9), (0.05, 0.95)),
                ((0.5, 0.9), (3.3, 0.9), (2.6, 1.45), (1.0, 1.45)),
            ),
            (),
            (
                ((0.8, 0.95), (1.75, 0.95), (1.75, 1.38), (1.1, 1.38)),
                ((1.85, 0.95), (3.0, 0.95), (2.5, 1.38), (1.85, 1.38)),
            ),
            ((0.85, 0.33), (3.45, 0.33)),
        ),
        "juggernaut": Shape(
            13.5,
            (((11.2, 0.6), (13.5, 0.6), (13.5, 2.2), (13.1, 3.3), (11.2, 3.4)),),
            (_box(0.0, 1.1, 10.9, 3.9), _box(0.3, 0.8, 13.0, 1.1)),
            (_box(12.3, 2.0, 13.2, 2.9),),
            ((1.0, 0.5), (2.2, 0.5), (3.4, 0.5), (9.9, 0.5), (12.6, 0.5)),
        ),
        "minibus": Shape(
            6.0,
            (((0.0, 0.4), (6.0, 0.4), (5.95, 1.3), (5.4, 2.4), (0.0, 2.5)),),
            (_box(0.0, 0.9, 5.9, 1.05),),
            (*_windows(0.3, 4.3, 1.4, 2.2, 4), ((4.5, 1.4), (5.7, 1.4), (5.3, 2.2), (4.5, 2.2))),
            ((1.1, 0.38), (4.8, 0.38)),
        ),
        "pickup": Shape(
            5.3,
            (
                ((0.0, 0.5), (5.3, 0.5), (5.25, 1.0), (4.1, 1.15), (0.0, 1.1)),
                ((2.1, 1.1), (4.2, 1.1), (3.7, 1.8), (2.2, 1.8)),
            ),
            (),
            (_box(2.35, 1.2, 2.95, 1.7), ((3.05, 1.2), (3.95, 1.2), (3.6, 1.7), (3.05, 1.7))),
            ((0.95, 0.42), (4.3, 0.42)),
        ),
        "truck": Shape(
            7.5,
            (((5.6, 0.5), (7.5, 0.5), (7.5, 1.7), (7.1, 2.6), (5.6, 2.7)),),
            (_box(0.0, 0.9, 5.4, 3.3), _box(0.2, 0.65, 5.6, 0.9)),
            (_box(6.2, 1.6, 7.2, 2.3),),
            ((1.3, 0.48), (6.4, 0.48)),
        ),
    }
)
"""The six classes, in the order of their labels."""


def render_vehicles(per_class: int, *, seed: int = 0, size: int = 64) -> ImagePack:
    """A pack of rendered crops, in mixed order; every fifth of each class is test data.

    Args:
        per_class: crops of each class.
        seed: the same seed gives the same crops.
        size: pixels a side.
    """
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(SHAPES)), per_class)
    split = np.tile(np.arange(per_class) < _TEST_SHARE * per_class, len(SHAPES)).astype(np.uint8)
    order = rng.permutation(len(labels))
    shapes = list(SHAPES.values())
    images = np.empty((len(labels), size, size, 3), np.uint8)
    for i, label in enumerate(labels[order]):
        images[i] = render_vehicle(shapes[label], rng, size)
    return ImagePack.of(images, classes=tuple(SHAPES), labels=labels[order], split=split[order])


def render_vehicle(shape: Shape, rng: np.random.Generator, size: int) -> U1:
    """(size, size, 3) uint8 RGB: one vehicle on its road."""
    cv2 = opencv()
    canvas = _road(rng, size * _FINER)
    place = _pose(shape, rng, size * _FINER)
    paint = _PAINTS[rng.integers(len(_PAINTS))] + rng.integers(-20, 21, 3)
    second = paint * rng.uniform(0.6, 1.1) if rng.random() < 0.5 else _PAINTS[rng.integers(len(_PAINTS))]  # noqa: PLR2004
    shadow = _box(-0.2, -0.25, shape.length + 0.2, 0.15)
    _fill(canvas, [shadow], place, np.array((45, 45, 48)))
    for radius_share, colour in ((1.0, _RUBBER), (0.5, (120, 120, 125))):
        _discs(canvas, shape, place, radius_share, np.array(colour))
    _fill(canvas, shape.second, place, second)
    _fill(canvas, shape.paint, place, paint)
    _fill(canvas, shape.glass, place, np.array(_GLASS) + rng.integers(-15, 40))
    for radius_share, colour in ((0.9, _RUBBER), (0.45, (120, 120, 125))):
        _discs(canvas, shape, place, radius_share, np.array(colour))
    image = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.9) * size / 64)
    light = rng.uniform(0.7, 1.2) * np.linspace(rng.uniform(0.85, 1.15), 1, size)[None, :, None]
    noisy = image * light + rng.normal(0, rng.uniform(2, 7), image.shape)
    finished: U1 = np.clip(noisy, 0, 255).astype(np.uint8)
    return finished


def _road(rng: np.random.Generator, side: int) -> U1:
    """Sky or verge above, asphalt below, perhaps a line on it."""
    cv2 = opencv()
    horizon = int(side * rng.uniform(0.05, 0.45))
    canvas = np.empty((side, side, 3), np.uint8)
    canvas[:horizon] = rng.integers(70, 190, 3)
    canvas[horizon:] = rng.integers(70, 140) + rng.integers(-6, 7, 3)
    for _ in range(rng.integers(0, 4)):
        at = int(rng.uniform(horizon, side))
        cv2.line(canvas, (0, at), (side, at + int(rng.integers(-9, 10))), (200, 200, 195), int(rng.integers(1, 5)))
    coarse = rng.normal(0, 10, (8, 8, 1)).astype(np.float32)
    mottled = canvas + cv2.resize(coarse, (side, side))[:, :, None]
    road: U1 = np.clip(mottled, 0, 255).astype(np.uint8)
    return road


def _pose(shape: Shape, rng: np.random.Generator, side: int) -> F8:
    """(2, 3) from the vehicle's metres to pixels: foreshortened, mirrored, tilted, scaled, moved.

    Long vehicles are seen at a sharper angle, as they are where they fit into the picture at all.
    """
    high = max(y for part in (*shape.paint, *shape.second) for _, y in part)
    turned = rng.uniform(0.6, 1.0) if shape.length < 5 else rng.uniform(0.45, 0.8)  # noqa: PLR2004
    scale = side * rng.uniform(0.7, 0.95) / max(shape.length * turned, high * 1.2)
    across = scale * turned * rng.choice((-1, 1))
    tilt, lean = rng.uniform(-0.08, 0.08), rng.uniform(-0.15, 0.15)
    matrix = np.array([(across, scale * lean), (scale * tilt, -scale * rng.uniform(0.9, 1.1))])
    middle = matrix @ (shape.length / 2, high / 2)
    shift = side / 2 - middle + side * rng.uniform(-0.06, 0.06, 2)
    return np.column_stack([matrix, shift])


def _fill(canvas: U1, parts: tuple[Polygon, ...] | list[Polygon], place: F8, colour: npt.NDArray[np.generic]) -> None:
    for part in parts:
        points = np.column_stack([np.array(part), np.ones(len(part))]) @ place.T
        opencv().fillPoly(canvas, [np.rint(points).astype(np.int32)], _colour(colour))


def _discs(canvas: U1, shape: Shape, place: F8, share: float, colour: npt.NDArray[np.generic]) -> None:
    for x, radius in shape.wheels:
        middle = np.rint(place @ (x, radius, 1)).astype(int).tolist()
        axes = [max(1, round(radius * share * abs(float(k)))) for k in (place[0, 0], place[1, 1])]
        opencv().ellipse(canvas, middle, axes, 0, 0, 360, _colour(colour), -1)


def _colour(colour: npt.NDArray[np.generic]) -> list[int]:
    levels: list[int] = np.clip(colour, 0, 255).astype(int).tolist()
    return levels
