"""Sources of frames and readings, opened by URI.

================  =====================================================================================
``file://``       a video file; options ``width``, ``stall_s``
``folder://``     a folder of images, with a record beside each where the task has own inputs; option ``labels``
``pack://``       a data pack of images or series; option ``labels``, ``split`` (``train``, ``test``)
``csv://``        a growing CSV file of readings; option ``follow`` (default true)
``rtsp://``       a network camera; options after ``#``: ``width``, ``stall_s``, ``frozen_s``
``v4l2://``       a USB or capture card, ``v4l2:///dev/video0``; and ``width``, ``height``, ``fps``
``csi://``        a ribbon-cable camera on a Jetson, ``csi://0``; the same, through GStreamer
================  =====================================================================================
"""

from __future__ import annotations

from math import inf
from typing import Final

import numpy as np

from devices.opencv import opencv
from devices.packs import ImagePack, open_pack
from devices.sources.address import Address, parse_address
from devices.sources.base import Fault, Frame, Pace, Source
from devices.sources.decoder import Backend, DecodeJob
from devices.sources.folder import FolderSource
from devices.sources.packed import ImagePackSource, SeriesPackSource
from devices.sources.table import TableSource
from devices.sources.video import VideoSource
from edge_protocol.errors import ConfigError, DataError, SourceError

__all__ = ["Fault", "Frame", "Source", "check_address", "open_source"]

_CAMERA: Final = frozenset({"width", "height", "fps", "stall_s", "frozen_s"})
_OPTIONS: Final = {
    "file": frozenset({"width", "stall_s"}),
    "folder": frozenset({"labels"}),
    "pack": frozenset({"labels", "split"}),
    "csv": frozenset({"follow"}),
    "rtsp": frozenset({"width", "stall_s", "frozen_s"}),
    "rtsps": frozenset({"width", "stall_s", "frozen_s"}),
    "v4l2": _CAMERA,
    "csi": _CAMERA,
}
_BACKENDS: Final[dict[str, Backend]] = {"rtsp": "network", "rtsps": "network", "v4l2": "v4l2", "csi": "gstreamer"}
_SPLITS: Final = {"train": 0, "test": 1}
_STALL_S = 10.0
_FROZEN_S = 30.0


def check_address(uri: str) -> str:
    """Read a source's address without opening it; return it as it may be shown, without secrets.

    Raises:
        ConfigError: the URI or one of its options is wrong.
    """
    return parse_address(uri, _OPTIONS).shown


def open_source(
    uri: str, *, name: str, rate_hz: float | None = None, loop: bool = False, side: tuple[str, ...] = ()
) -> Source:
    """Open a source.

    Args:
        uri: see the table above.
        name: begins the names of its samples.
        rate_hz: frames a second to deliver; None for the source's own pace (a file's frame rate; packs, folders and
            CSV files as fast as they are asked), inf for as fast as asked.
        loop: begin again at the end, for files, folders and packs.
        side: names of the task's own inputs: packs bring these, in this order, folders the records beside their images.
            Without any, columns and records are somebody else's and not looked at.

    Raises:
        ConfigError: the URI or one of its options is wrong.
        SourceError: there is nothing to read there.
        DataError: a pack that cannot be read, or that brings other side inputs.
    """
    address = parse_address(uri, _OPTIONS)
    if rate_hz is not None and not rate_hz > 0:
        raise ConfigError(f"source {address.shown}: rate_hz must be above 0, not {rate_hz}")
    pace = Pace(rate_hz)
    match address.scheme:
        case "pack":
            return _open_pack(address, name, pace, loop=loop, side=side)
        case "folder":
            labels = address.flag("labels", default=False)
            return FolderSource(address.path, name=name, pace=pace, loop=loop, labels=labels, records=bool(side))
        case "csv":
            follow = address.flag("follow", default=True)
            return TableSource(address.path, name=name, pace=pace, loop=loop, follow=follow)
        case _:
            return _open_video(address, name, rate_hz, loop=loop)


def _open_pack(address: Address, name: str, pace: Pace, *, loop: bool, side: tuple[str, ...]) -> Source:
    pack, labels = open_pack(address.path), address.flag("labels", default=False)
    if not isinstance(pack, ImagePack):
        return SeriesPackSource(pack, name=name, pace=pace, loop=loop)
    rows, split = np.arange(len(pack)), address.options.get("split")
    if split is not None:
        if split not in _SPLITS:
            raise ConfigError(f"source {address.shown}: split={split!r} must be train or test")
        rows = np.flatnonzero(pack.split == _SPLITS[split])
    try:
        pack = pack.with_side(side)
    except DataError as error:
        raise DataError(f"source {address.shown}: {error}; make the pack with what the plug-in's side says") from error
    return ImagePackSource(pack, rows, name=name, pace=pace, loop=loop, labels=labels)


def _open_video(address: Address, name: str, rate_hz: float | None, *, loop: bool) -> Source:
    if address.scheme == "file" and not address.path.is_file():
        raise SourceError(f"{address.path}: no such file; check the path")
    job = DecodeJob(
        backend=_BACKENDS.get(address.scheme, "file"),
        target=address.target,
        loop=loop,
        width=int(address.number("width", default=0, low=0, high=8192)),
        height=int(address.number("height", default=0, low=0, high=8192)),
        fps=address.number("fps", default=0, low=0, high=1000),
    )
    if address.scheme == "csi":
        job = DecodeJob("gstreamer", csi_pipeline(job), fps=job.fps)
    return VideoSource(
        job,
        name=name,
        shown=address.shown,
        rate_hz=rate_hz,
        stall_s=address.number("stall_s", default=_STALL_S, low=0.1, high=3600),
        frozen_after_s=address.number("frozen_s", default=_FROZEN_S, low=0.1, high=86400) if job.live else inf,
    )


def csi_pipeline(job: DecodeJob) -> str:
    """The GStreamer pipeline of a ribbon-cable camera; it drops what nobody takes.

    Raises:
        ConfigError: the target is no sensor number.
        SourceError: this OpenCV was built without GStreamer.
    """
    if not job.target.isdigit():
        raise ConfigError(f"source csi://{job.target}: name the sensor by its number, such as csi://0")
    if not _has_gstreamer(opencv().getBuildInformation()):
        raise SourceError(
            f"csi://{job.target}: this OpenCV was built without GStreamer; use the board's own (apt install "
            "python3-opencv, virtual environment with --system-site-packages), or a USB camera over v4l2://"
        )
    size = f"width={job.width or 1280},height={job.height or 720},framerate={round(job.fps or 30)}/1"
    return (
        f"nvarguscamerasrc sensor-id={job.target} ! video/x-raw(memory:NVMM),{size} ! nvvidconv"
        " ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR"
        " ! appsink drop=true max-buffers=1 sync=false"
    )


def _has_gstreamer(build: str) -> bool:
    return any("GStreamer:" in line and "YES" in line for line in build.splitlines())
