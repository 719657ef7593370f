"""What moves in a fixed camera's picture, whatever its auto-exposure does.

Each frame is first brought to the exposure of the background: the gain is the commonest ratio of the two, smoothed over
large patches because a camera's tone curve bends it. Then a mixture of Gaussians per pixel decides (Zivkovic and van
der Heijden 2006; shadows by Prati et al. 2003), as OpenCV has it. Owns no notion of an object's identity.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from devices.opencv import opencv
from edge_client.moving_objects.config import MovingObjectsConfig

U1 = npt.NDArray[np.uint8]
F4 = npt.NDArray[np.float32]
F8 = npt.NDArray[np.float64]
_FOREGROUND = 255
_DARK, _BRIGHT = 12, 245
_MIN_PIXELS = 50
_REFRESH = 5
_MAX_LOG_GAIN, _BINS = 2.0, 80
_LIKE, _PATCHES, _TRUST = 0.2, 4, 0.02
_SMOOTH, _OPEN, _CLOSE = 5, 3, 7
_STUCK = 100


class Background:
    """The background of one camera.

    Attributes:
        frames: seen since the last start or reset.
        resets: how often the whole picture changed at once.
        gain: exposure of the last frame relative to the background.
    """

    def __init__(self, config: MovingObjectsConfig) -> None:
        self._config = config
        self._cv2 = opencv()
        self.frames = self.resets = 0
        self.gain, self._part = 1.0, 0.0
        self._crowded = 0
        self._start()

    @property
    def learning(self) -> bool:
        """Whether the background is too young to be believed."""
        return self.frames <= self._config.warmup

    def foreground(self, image: U1) -> U1:
        """What moves.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            (h, w) uint8, 255 where something moves, the longer side at most `size`; all 0 while learning.
        """
        small = self._shrink(image)
        if self._reference is not None and self._reference.shape != small.shape:
            self.reset()
        levelled = self._level(self._cv2.GaussianBlur(small, (_SMOOTH, _SMOOTH), 0))
        mask: U1 = self._model.apply(levelled)
        self.frames += 1
        moving = ((mask == _FOREGROUND) * np.uint8(_FOREGROUND)).astype(np.uint8)
        part = float(np.count_nonzero(moving)) / moving.size
        self._crowded = self._crowded + 1 if part > self._config.max_area else 0
        if not self.learning and (part - self._part > self._config.sudden or self._crowded > _STUCK):
            self.reset()
            return self.foreground(image)
        self._part = part
        self._remember(levelled)
        return np.zeros_like(moving) if self.learning else self._tidy(moving)

    def reset(self) -> None:
        """Forget the background."""
        self.resets += 1
        self.frames = 0
        self._start()

    def _start(self) -> None:
        self._model = self._cv2.createBackgroundSubtractorMOG2(self._config.history, self._config.contrast, True)  # noqa: FBT003
        self._reference: U1 | None = None
        self._part = 0.0
        self._crowded = 0

    def _shrink(self, image: U1) -> U1:
        height, width = image.shape[:2]
        scale = self._config.size / max(height, width)
        if scale >= 1:
            return image
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small: U1 = self._cv2.resize(image, size, interpolation=self._cv2.INTER_AREA)
        return small

    def _level(self, small: U1) -> U1:
        """The frame at the background's exposure."""
        if self._reference is None:
            return small
        ratio, weight = self._ratio(small[:, :, 1], self._reference[:, :, 1])
        if np.count_nonzero(weight) < _MIN_PIXELS:
            return small
        self.gain = _mode(ratio[weight])
        weight &= np.abs(ratio - self.gain) < _LIKE * self.gain
        window = (small.shape[1] // _PATCHES, small.shape[1] // _PATCHES)
        total = self._cv2.blur(np.where(weight, ratio, 0), window)
        share = self._cv2.blur(weight.astype(np.float32), window)
        local = (total + _TRUST * self.gain) / (share + _TRUST)
        levelled: U1 = self._cv2.convertScaleAbs(small / local[:, :, None])
        return levelled

    @staticmethod
    def _ratio(now: U1, then: U1) -> tuple[F4, npt.NDArray[np.bool_]]:
        """(h, w) float32 this frame over the background, and where that means something."""
        usable = (now > _DARK) & (now < _BRIGHT) & (then > _DARK) & (then < _BRIGHT)
        return now / np.maximum(then, np.float32(1)), usable

    def _remember(self, levelled: U1) -> None:
        if self._reference is None or self.frames % _REFRESH == 0 or self.learning:
            self._reference = self._model.getBackgroundImage()
            if self._reference is None:
                self._reference = levelled

    def _tidy(self, moving: U1) -> U1:
        """Without specks, with holes such as dark windows closed."""
        cv2 = self._cv2
        opened = cv2.morphologyEx(moving, cv2.MORPH_OPEN, np.ones((_OPEN, _OPEN), np.uint8))
        closed: U1 = cv2.morphologyEx(opened, cv2.MORPH_CLOSE, np.ones((_CLOSE, _CLOSE), np.uint8))
        return closed


def _mode(ratio: F4) -> float:
    """The commonest ratio: the background's, for it changes as one while objects differ in themselves."""
    counts, edges = np.histogram(np.log(ratio), _BINS, (-_MAX_LOG_GAIN, _MAX_LOG_GAIN))
    peak = int(np.argmax(np.convolve(counts, (1, 2, 1), "same")))
    near = ratio[np.abs(np.log(ratio) - (edges[peak] + edges[peak + 1]) / 2) < _LIKE]
    return float(np.median(near)) if len(near) else 1.0


def boxes(moving: U1, config: MovingObjectsConfig) -> F8:
    """Where connected regions of a sane size lie, the largest first.

    Args:
        moving: (h, w) uint8, 0 where nothing moves.
        config: sizes, and how many at most.

    Returns:
        (N, 4) float64: left, top, right, bottom, relative to the picture.
    """
    height, width = moving.shape
    _, _, stats, _ = opencv().connectedComponentsWithStats(moving, connectivity=8)
    area = stats[1:, 4] / (height * width)
    sane = np.flatnonzero((area >= config.min_area) & (area <= config.max_area))
    chosen = sane[np.argsort(-area[sane], kind="stable")][: config.max_tracks]
    left, top, wide, high, _ = stats[1:][chosen].T.astype(np.float64)
    return np.stack([left / width, top / height, (left + wide) / width, (top + high) / height], axis=1)
