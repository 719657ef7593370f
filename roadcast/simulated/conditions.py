"""What weather, light and cheap optics do to pictures. Pure: seeded, nothing is changed in place.

Each function takes `images` (N, H, W, 3) uint8 RGB and a generator, and returns new images of the same shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from devices.opencv import opencv

U1 = npt.NDArray[np.uint8]
F4 = npt.NDArray[np.float32]
Condition = Callable[[U1, np.random.Generator], U1]


def clean(images: U1, rng: np.random.Generator) -> U1:  # noqa: ARG001 - one signature for all conditions
    """Nothing happens."""
    return np.copy(images)


def night(images: U1, rng: np.random.Generator) -> U1:
    """Little light: dark, compressed towards black, with the sensor's noise."""
    light = _each(images, rng, 0.15, 0.35)
    grain = rng.normal(0, 8, images.shape).astype(np.float32)
    return _bytes(images.astype(np.float32) ** 1.1 * light + grain)


def fog(images: U1, rng: np.random.Generator) -> U1:
    """Scattered light: contrast is lost towards a bright grey (Koschmieder 1924, one depth)."""
    through = _each(images, rng, 0.25, 0.45)
    return _bytes(images * through + 200 * (1 - through))


def blur(images: U1, rng: np.random.Generator) -> U1:
    """Out of focus: a Gaussian of 3 to 5 % of the height."""
    cv2 = opencv()
    sigmas = images.shape[1] * rng.uniform(0.03, 0.05, len(images))
    return _map(images, lambda i, image: cv2.GaussianBlur(image, (0, 0), float(sigmas[i])))


def low_resolution(images: U1, rng: np.random.Generator) -> U1:
    """A far or cheap camera: a quarter to two fifths of the pixels a side."""
    cv2 = opencv()
    height, width = images.shape[1:3]
    shares = rng.uniform(0.25, 0.4, len(images))

    def coarse(i: int, image: U1) -> U1:
        size = (max(2, round(width * shares[i])), max(2, round(height * shares[i])))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        large: U1 = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
        return large

    return _map(images, coarse)


def warm(images: U1, rng: np.random.Generator) -> U1:
    """A colour balance set for another light: red up, blue down."""
    gains = np.stack(
        [rng.uniform(1.2, 1.5, len(images)), np.ones(len(images)), rng.uniform(0.4, 0.6, len(images))], axis=1
    )
    return _bytes(images * gains[:, None, None].astype(np.float32))


def auto_exposure(images: U1, rng: np.random.Generator) -> U1:
    """A control loop between two exposures: gains of one half to two, equal over the picture."""
    return _bytes(images * np.exp2(_each(images, rng, -1, 1)))


CONDITIONS: Mapping[str, Condition] = MappingProxyType(
    {
        "clean": clean,
        "night": night,
        "fog": fog,
        "blur": blur,
        "low_resolution": low_resolution,
        "warm": warm,
        "auto_exposure": auto_exposure,
    }
)
"""All conditions by name."""


def _each(images: U1, rng: np.random.Generator, low: float, high: float) -> F4:
    """(N, 1, 1, 1) float32, one number for each image."""
    return rng.uniform(low, high, (len(images), 1, 1, 1)).astype(np.float32)


def _map(images: U1, change: Callable[[int, U1], U1]) -> U1:
    changed = np.empty_like(images)
    for i, image in enumerate(images):
        changed[i] = change(i, image)
    return changed


def _bytes(values: npt.NDArray[Any]) -> U1:
    levels: U1 = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return levels
