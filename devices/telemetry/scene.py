"""Does the camera still see what it saw when it was commissioned? Pure but for `Scene.save` and `Scene.load`.

Counting lines are drawn on one picture. A camera that was turned, smeared, covered or put out of focus goes on
delivering frames, and its counts are wrong. What is kept of the commissioning frame is no picture; light,
weather and traffic may change, the edges of road and buildings stay. A shift is found by phase correlation (Kuglin and
Hines, 1975) of edge maps.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args
from zipfile import BadZipFile

import msgspec
import numpy as np
import numpy.typing as npt

from devices.sources.quality import BLACK_LEVEL
from edge_protocol.errors import DataError, StoreError
from edge_protocol.files import write_atomic

U1: TypeAlias = npt.NDArray[np.uint8]
F4: TypeAlias = npt.NDArray[np.float32]
Fault: TypeAlias = Literal["black", "dark", "occluded", "blurred", "moved", "resized"]
"""``dark``: there is a picture, but too little light in it to say more."""
FAULTS: Final[tuple[Fault, ...]] = get_args(Fault)

_WIDTH: Final = 128
_BLOCKS: Final = 8
_BRIGHT: Final = 99
_DARK: Final = 48
_FLAT: Final = 4.0
_LOST: Final = 0.25


class SceneLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a scene is another one.

    Attributes:
        lost: share of blocks with structure that have none any more.
        sharpness: fine detail, relative to the commissioning frame.
        shift: of the picture's width.
        match: peak of the phase correlation below which nothing of the old scene is found.
    """

    lost: float = 0.3
    sharpness: float = 0.45
    shift: float = 0.03
    match: float = 0.03


class View(msgspec.Struct, frozen=True):
    """How a frame compares with the scene.

    Attributes:
        fault: what is wrong, None when it is the same view.
        lost: share of structured blocks that are flat now, 0 to 1; None, as the others, when it cannot be said.
        sharpness: fine detail relative to the commissioning frame.
        shift: how far the picture moved, as a share of its width, to the right and down.
        match: peak of the phase correlation, 1 for the same picture.
    """

    fault: Fault | None
    lost: float | None
    sharpness: float | None
    shift: tuple[float, float] | None
    match: float | None


@dataclass(frozen=True, eq=False)
class Scene:
    """What is remembered of a camera's view: structure by block and a small map of edges, not the picture.

    Attributes:
        shape: height and width of its frames in pixels.
        texture: (8, 8) float32, contrast of each block.
        detail: (8, 8) float32, fine detail of each block over its contrast.
        edges: (rows, about 128) float32.
        limits: see there.
    """

    shape: tuple[int, int]
    texture: F4
    detail: F4
    edges: F4
    limits: SceneLimits = field(default_factory=SceneLimits)

    @classmethod
    def of(cls, image: U1, limits: SceneLimits | None = None) -> Scene:
        """The scene of a commissioning frame.

        Args:
            image: (H, W, 3) uint8, at least 64 x 64.
            limits: see there.
        """
        grey = _grey(image)
        texture, detail = _structure(grey)
        return cls((image.shape[0], image.shape[1]), texture, detail, _edges(grey), limits or SceneLimits())

    def save(self, path: Path) -> None:
        """Write it to a file.

        Raises:
            StoreError: the disk refused.
        """
        packed = BytesIO()
        np.savez(packed, shape=np.array(self.shape), texture=self.texture, detail=self.detail, edges=self.edges)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, packed.getvalue())
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror or error}; look at the disk") from error

    @classmethod
    def load(cls, path: Path) -> Scene:
        """Read what `save` wrote.

        Raises:
            DataError: it cannot be read.
        """
        try:
            with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as held:
                height, width = (int(size) for size in held["shape"])
                texture, detail = (np.asarray(held[name], np.float32) for name in ("texture", "detail"))
                edges = np.asarray(held["edges"], np.float32)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise DataError(f"{path}: no scene of a camera: {error}; run: roadcast devices commission") from error
        if edges.shape != _small_shape(height, width) or not texture.shape == detail.shape == (_BLOCKS, _BLOCKS):
            raise DataError(f"{path}: the scene is torn; run: roadcast devices commission")
        return cls((height, width), texture, detail, edges)

    def compare(self, image: U1) -> View:
        """Compare a frame with the scene.

        Args:
            image: (H, W, 3) uint8; of another size than the commissioning frame's, it is ``resized``.
        """
        if image.shape[:2] != self.shape:
            return View("resized", None, None, None, None)
        grey = _grey(image)
        bright = np.percentile(grey, _BRIGHT)
        if bright < _DARK:
            return View("black" if bright < BLACK_LEVEL else "dark", None, None, None, None)
        texture, detail = _structure(grey)
        known = self.texture > _FLAT
        sharpness = float(np.median(detail[known] / self.detail[known])) if known.any() else 1.0
        lost = self._lost(texture)
        shift, match = self._shift(_edges(grey))
        return View(self._fault(lost, sharpness, shift, match), lost, sharpness, shift, match)

    def _fault(self, lost: float, sharpness: float, shift: tuple[float, float], match: float) -> Fault | None:
        limits = self.limits
        if lost > limits.lost:
            return "occluded"
        if sharpness < limits.sharpness:
            return "blurred"
        return "moved" if match < limits.match or max(map(abs, shift)) > limits.shift else None

    def _lost(self, texture: F4) -> float:
        """Blocks that had structure and have little, once the whole picture's loss of contrast is taken out."""
        known = self.texture > _FLAT
        if not known.any():
            return 0.0
        gain = min(1.0, float(np.quantile(texture[known] / self.texture[known], 0.9)))
        return float((texture[known] < _LOST * gain * self.texture[known]).mean()) if gain > _LOST / 10 else 1.0

    def _shift(self, edges: F4) -> tuple[tuple[float, float], float]:
        spectrum = np.fft.rfft2(edges) * np.conj(np.fft.rfft2(self.edges))
        surface = np.fft.irfft2(spectrum / (np.abs(spectrum) + 1e-9), s=edges.shape)
        height, width = edges.shape
        down, right = np.unravel_index(int(surface.argmax()), surface.shape)
        signed = [(int(at) + size // 2) % size - size // 2 for at, size in ((right, width), (down, height))]
        return (signed[0] / width, signed[1] / width), float(surface.max())


class SceneWatch:
    """Calls a fault only when most of the last frames show it: a lorry may fill one of them.

    Args:
        scene: of the camera.
        frames: that are looked back on; feed it one every few seconds.
    """

    def __init__(self, scene: Scene, frames: int = 9) -> None:
        self._scene, self._needed = scene, frames * 2 // 3
        self._last: deque[Fault | None] = deque(maxlen=frames)

    def fault(self, image: U1) -> Fault | None:
        """Look at the next frame; say what is wrong with the view, None when nothing is, or not for long enough.

        Args:
            image: (H, W, 3) uint8.
        """
        self._last.append(self._scene.compare(image).fault)
        fault, count = Counter(self._last).most_common(1)[0]
        return fault if count >= self._needed else None


def _grey(image: U1) -> F4:
    grey: F4 = image.mean(axis=2, dtype=np.float32)
    return grey


def _small(grey: F4, step: int) -> F4:
    """Means over squares of `step` pixels."""
    rows, columns = grey.shape[0] // step, grey.shape[1] // step
    small: F4 = grey[: rows * step, : columns * step].reshape(rows, step, columns, step).mean(axis=(1, 3))
    return small


def _small_shape(height: int, width: int) -> tuple[int, int]:
    step = max(1, width // _WIDTH)
    return height // step, width // step


def _edges(grey: F4) -> F4:
    """Strength of edges in a small picture, compressed so that no single one dominates, faded towards the borders."""
    small = _small(grey, max(1, grey.shape[1] // _WIDTH))
    down, right = np.gradient(small)
    strength = np.sqrt(np.hypot(down, right))
    window = np.outer(np.hanning(small.shape[0]), np.hanning(small.shape[1]))
    faded: F4 = ((strength - strength.mean()) * window).astype(np.float32)
    return faded


def _structure(grey: F4) -> tuple[F4, F4]:
    """Of each block of an 8 x 8 grid the standard deviation, and the mean strength of the Laplacian over it.

    The latter is what bad focus and a dirty lens take away, and dusk does not. On pixels of half the size: the finest
    detail comes and goes with a video's key frames. By block: a lorry must not decide for the whole picture.
    """
    grey = _small(grey, 2)
    laplacian = np.zeros_like(grey)
    laplacian[1:-1, 1:-1] = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    texture: F4 = _blocks(grey).std(axis=(1, 3))
    detail: F4 = np.abs(_blocks(laplacian)).mean(axis=(1, 3)) / (texture + 1)
    return texture, detail


def _blocks(picture: F4) -> F4:
    rows, columns = picture.shape[0] // _BLOCKS, picture.shape[1] // _BLOCKS
    return picture[: rows * _BLOCKS, : columns * _BLOCKS].reshape(_BLOCKS, rows, _BLOCKS, columns)
