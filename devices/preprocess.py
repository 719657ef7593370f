"""From a camera's frame to what a student takes: the release says the input, the device corrects its own camera.

Owns colour gains, contrast, size and normalisation; owns no crop (`edge_client.moving_objects` cuts those).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from devices.opencv import opencv
from edge_protocol.errors import ConfigError
from edge_protocol.task import ImageInput

U1 = npt.NDArray[np.uint8]
F4 = npt.NDArray[np.float32]
_LEVELS = 256
_FULL = 255.0


class PreprocessConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What this device's own camera needs.

    Attributes:
        gains: factors for red, green and blue that undo the camera's colour cast.
        equalise: spread the brightness of each image over the full range (fog, night).
        mean: per channel, of values in [0, 1], instead of the release's.
        std: per channel, instead of the release's.
    """

    gains: tuple[Annotated[float, Meta(gt=0, le=16)], ...] = (1.0, 1.0, 1.0)
    equalise: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[Annotated[float, Meta(gt=0)], ...] | None = None


class Preprocess:
    """Turns frames into stored samples, and stored samples into batches."""

    def __init__(self, spec: ImageInput, config: PreprocessConfig | None = None) -> None:
        """Args: spec: from the release; config: the device's own.

        Raises:
            ConfigError: gains, mean or std have the wrong number of values.
        """
        config = config or PreprocessConfig()
        if len(config.gains) != 3:  # noqa: PLR2004 - red, green, blue
            raise ConfigError(f"preprocess.gains: needs three values (red, green, blue), got {len(config.gains)}")
        mean, std = config.mean or spec.mean, config.std or spec.std
        if len(mean) != spec.channels or len(std) != spec.channels or min(std) <= 0:
            raise ConfigError(f"preprocess: mean and std need {spec.channels} values each, and every std above 0")
        self._spec = spec
        self._equalise = config.equalise
        self._gains = None if config.gains == (1.0, 1.0, 1.0) else _table(config.gains)
        self._scale = (1 / (_FULL * np.asarray(std))).astype(np.float32)
        self._shift = (np.asarray(mean) / np.asarray(std)).astype(np.float32)

    def raw(self, image: U1) -> U1:
        """The sample as it is stored.

        Args:
            image: (H, W, 3) uint8 RGB, as the camera gave it.

        Returns:
            (height, width, channels) uint8, corrected for this camera.
        """
        cv2 = opencv()
        height, width = self._spec.height, self._spec.width
        if image.shape[:2] != (height, width):
            shrinks = image.shape[0] >= height and image.shape[1] >= width
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        if self._gains is not None:
            image = cv2.LUT(image, self._gains)
        if self._equalise:
            luma = cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)
            luma[:, :, 0] = cv2.equalizeHist(luma[:, :, 0])
            image = cv2.cvtColor(luma, cv2.COLOR_YCrCb2RGB)
        if self._spec.channels == 1:
            image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, None]
        return image

    def batch(self, raw: U1) -> F4:
        """Samples as the student takes them.

        Args:
            raw: (N, height, width, channels) uint8.

        Returns:
            (N, channels, height, width) float32, normalised, C order.
        """
        scaled = raw.astype(np.float32) * self._scale - self._shift
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def _table(gains: tuple[float, ...]) -> U1:
    """(1, 256, 3) uint8: what each level of each colour becomes."""
    levels = np.arange(_LEVELS)[:, None] * np.asarray(gains)
    table: U1 = np.clip(np.rint(levels), 0, _FULL).astype(np.uint8)[None]
    return table
