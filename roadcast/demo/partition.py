"""Finds the data, deals it out, and writes everybody's packs into the work folder. Owns names, no rule."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from devices.opencv import opencv
from devices.packs import ImagePack, Pack, SeriesPack, card_path, open_pack, save_pack
from edge_protocol.errors import DataError
from roadcast.data.find import DataLocation, find_data_dir
from roadcast.demo.fleet import cameras, sensors
from roadcast.demo.image_shares import ImageSizes, share_images
from roadcast.demo.series_shares import SeriesSizes, share_series
from roadcast.simulated.roadside import CLIP, SPEED_PACK, VEHICLE_PACK, simulate_roadside

U1 = npt.NDArray[np.uint8]
REAL = ("vehicle6_64_jpeg.npz", "metrla_week_speed.npz", "intel_car_detection.mp4")
REAL_CLIP_TRUTH = "2 forward, 2 backward"
_PER_CLASS, _ROADS, _DETECTORS, _DAYS = 500, 8, 14, 10
"""Of the simulated roadside: enough for everybody's share, and held-out days that are working days as most are."""


@dataclass(frozen=True)
class RawData:
    """What the demo runs on.

    Attributes:
        origin: for people: where it was found, or that it is simulated.
        images, series, clip: the files.
        real: whether it was recorded, not simulated.
        clip_truth: how many vehicles the clip shows, for people: counted by hand, or as it was rendered.
    """

    origin: str
    images: Path
    series: Path
    clip: Path
    real: bool
    clip_truth: str = ""


@dataclass(frozen=True)
class Sizes:
    """How much of the data everybody gets."""

    images: ImageSizes = field(default_factory=ImageSizes)
    series: SeriesSizes = field(default_factory=SeriesSizes)


@dataclass(frozen=True)
class Shares:
    """Folders of packs: ``<root>/server/<task>-<part>.npz`` and ``<root>/<device>/<part>.npz``."""

    root: Path

    def server(self, task: str, part: str) -> Path:
        """The server's ``anchors``, ``proxies``, ``validation`` or, for nobody but the evaluation, ``test``."""
        return self.root / "server" / f"{task}-{part}.npz"

    def device(self, name: str, part: str) -> Path:
        """A device's ``commissioning``, ``live`` or ``test``."""
        return self.root / name / f"{part}.npz"


def find_data(explicit: Path | None, work: Path, *, seed: int) -> RawData:
    """Find the real data, or simulate a roadside in the work folder.

    Raises:
        DataError: a folder that was named does not hold what the demo needs.
    """
    place = find_data_dir(explicit)
    if place.path is not None:
        found = _in_folder(place, place.path)
        if found is not None:
            return found
    folder = work / "simulated"
    simulate_roadside(folder, seed=seed, per_class=_PER_CLASS, days=_DAYS, roads=_ROADS, detectors=_DETECTORS)
    images, series, clip = (folder.resolve() / name for name in (VEHICLE_PACK, SPEED_PACK, CLIP))
    return RawData("built-in simulated roadside", images, series, clip, real=False, clip_truth=_truth(clip))


def _in_folder(place: DataLocation, folder: Path) -> RawData | None:
    for names, real in ((REAL, True), ((VEHICLE_PACK, SPEED_PACK, CLIP), False)):
        images, series, clip = (folder.resolve() / name for name in names)
        if images.is_file() and series.is_file() and clip.is_file():
            origin = str(folder) if place.origin == f"{folder}/" else f"{folder} (from {place.origin})"
            truth = REAL_CLIP_TRUTH if real else _truth(clip)
            return RawData(origin, images, series, clip, real=real, clip_truth=truth)
    if place.origin in {"--data", "$ROADCAST_DATA"}:
        raise DataError(f"{folder} (from {place.origin}): the demo needs {', '.join(REAL)} there; or name no folder")
    return None


class _ClipCard(msgspec.Struct):
    """What a simulated clip's card says of it: direction → vehicles."""

    truth: dict[str, int] = {}


def _truth(clip: Path) -> str:
    """What a simulated clip shows, for people; "" when its card does not say."""
    try:
        card = msgspec.json.decode(card_path(clip).read_bytes(), type=_ClipCard)
    except (OSError, msgspec.DecodeError):
        return ""
    return ", ".join(f"{count} {way}" for way, count in card.truth.items())


def partition(data: RawData, root: Path, sizes: Sizes, *, seed: int) -> Shares:
    """Deal the data out and write everybody's packs.

    Raises:
        DataError: a pack cannot be read, or is too small.
        StoreError: the disk refuses.
    """
    shares = Shares(root)
    images, series = open_pack(data.images), open_pack(data.series)
    if not isinstance(images, ImagePack) or not isinstance(series, SeriesPack):
        raise DataError(f"{data.images} must hold images and {data.series} series; they hold something else")
    rng = np.random.default_rng(seed)
    pictures = share_images(images, cameras(), sizes.images, rng)
    for part in ("anchors", "validation", "proxies", "test"):
        _save(shares.server("vehicle", part), getattr(pictures, part), data)
    for name, camera in pictures.cameras.items():
        for part in ("commissioning", "live", "test"):
            _save(shares.device(name, part), getattr(camera, part), data)
    roads = share_series(series, [member.name for member in sensors()], sizes.series, rng)
    for part in ("anchors", "validation", "proxies", "test", "past"):
        _save(shares.server("speed", part), getattr(roads, part), data)
    for name, loop in roads.devices.items():
        for part, pack in (("commissioning", loop.history), ("live", loop.live), ("test", loop.test)):
            _save(shares.device(name, part), pack, data)
    return shares


def _save(path: Path, pack: Pack, data: RawData) -> None:
    if isinstance(pack, ImagePack):
        pack = replace(pack, images=_shrunk(pack.images))
    save_pack(path, pack, title=f"demo: {path.parent.name}/{path.stem}", source=data.origin)


def _shrunk(images: U1) -> U1:
    """Half the width and height: what every tier takes in, and a quarter of the bytes."""
    cv2 = opencv()
    size = images.shape[2] // 2, images.shape[1] // 2
    return np.stack([cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images])
