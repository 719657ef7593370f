"""Is there anything to see? Black and frozen pictures must count as missing, never as an empty road. Pure."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

U1 = npt.NDArray[np.uint8]
BLACK_LEVEL = 16
"""A picture whose brightest percent is darker than this shows nothing (video black is 16 of 255)."""
_GRID = 64
_BRIGHT = 99


@dataclass
class FrameCheck:
    """Judges the frames of one camera.

    Attributes:
        frozen_after_s: a picture that has not changed in one sampled pixel for so long is frozen, for a real sensor
            always has noise; inf to allow still pictures.
    """

    frozen_after_s: float
    _digest: int = field(default=-1, init=False)
    _since_s: float = field(default=0.0, init=False)

    def fault(self, image: U1, at_s: float) -> Literal["black", "frozen"] | None:
        """What is wrong with a frame, or None.

        Args:
            image: (H, W, 3) uint8.
            at_s: when it was taken; must not run backwards.
        """
        step = max(1, min(image.shape[:2]) // _GRID)
        grid = np.ascontiguousarray(image[::step, ::step])
        digest = zlib.crc32(grid.data)
        if digest != self._digest:
            self._digest, self._since_s = digest, at_s
        if np.percentile(grid, _BRIGHT) < BLACK_LEVEL:
            return "black"
        return "frozen" if at_s - self._since_s >= self.frozen_after_s else None
