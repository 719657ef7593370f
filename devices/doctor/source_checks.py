"""Cameras and files that the device shall look at, tried out; and room for what it keeps. Owns no picture."""

from __future__ import annotations

import os
import shlex
import time
from pathlib import Path
from typing import Final

from devices.boards.attached import Camera
from devices.findings import Finding
from devices.sources import Frame, Source, open_source
from devices.sources.address import SCHEMES
from devices.sources.base import U1
from devices.telemetry.health import view_finding
from devices.telemetry.scene import Scene, SceneWatch
from edge_protocol.errors import DataError, RoadcastError, SourceError

_FIRST_S: Final = 20.0
_WATCH_S: Final = 2.0
_MOST_FRAMES: Final = 60
_VIEWS: Final = 5
_LIVE: Final = ("rtsp", "rtsps", "v4l2", "csi")
RELEASES_BYTES: Final = 500_000_000
"""Room for two releases, their chunks and a training, beside the replay store."""


def check_source(
    name: str,
    uri: str,
    scene: Path | None = None,
    *,
    side: tuple[str, ...] = (),
    first_s: float = _FIRST_S,
    watch_s: float = _WATCH_S,
) -> tuple[Finding, ...]:
    """Open a source, wait for a good frame, look for how many come, and whether they show the scene.

    Args:
        name: the source's.
        uri: see `devices.sources`; its password is not shown.
        scene: file of its commissioning frame, where one was taken.
        side: names of the task's own inputs: a frame is good with what brings them alone.
        first_s: how long to wait for the first good frame.
        watch_s: how long to count frames after it.
    """
    try:
        with open_source(uri, name=name, side=side) as source:
            first = first_frame(name, source, first_s)
            rate = _rate(source, watch_s) if uri.partition(":")[0] in _LIVE else ""
            found = [Finding("source", "ok", f"{name}: {_size(first)}{rate}")]
            if scene is not None and scene.exists() and first.image is not None:
                found.append(_viewed(name, scene, first.image, source))
            return tuple(found)
    except RoadcastError as error:
        fix = f"look at {name}: address, cable, power, and whether another program holds it"
        return (Finding("source", "fail", f"{name}: {error}", fix),)


def first_frame(name: str, source: Source, first_s: float = _FIRST_S) -> Frame:
    """The first frame without a fault.

    Args:
        name: the source's, for the error.
        source: it.
        first_s: how long to wait.

    Raises:
        SourceError: none came.
    """
    deadline, fault = time.monotonic() + first_s, None
    while (left := deadline - time.monotonic()) > 0 and not source.ended:
        frame = source.read(left)
        if frame is not None and frame.fault is None:
            return frame
        fault = fault if frame is None else frame.fault
    raise SourceError(f"no good frame of {name} in {first_s:g} s{f', last {fault}' if fault else ''}")


def check_cameras(cameras: tuple[Camera, ...]) -> Finding:
    """Say which cameras are plugged in; a network camera is known to the configuration only."""
    names = ", ".join(f"{camera.device} {camera.name}" for camera in cameras)
    return Finding("cameras", "ok", names or f"none plugged in; others come by {', '.join(SCHEMES[4:6])}")


def check_state_dir(folder: Path, replay_bytes: int) -> Finding:
    """The state directory is there, can be written, and has room.

    Args:
        folder: the directory.
        replay_bytes: budget of the replay store.
    """
    needed = replay_bytes + RELEASES_BYTES
    if not folder.is_dir():
        fix = shlex.join(["mkdir", "-p", str(folder)])
        return Finding("state", "warn", f"{folder}: not there yet", fix, safe=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        fix = f"sudo chown $USER {shlex.quote(str(folder))}"
        return Finding("state", "fail", f"{folder}: may not be written by this user", fix)
    room = os.statvfs(folder)
    free = room.f_bavail * room.f_frsize
    says = f"{folder}: {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB needed at most"
    if free < needed:
        return Finding("state", "fail", says, "free some, or a smaller replay.budget_bytes")
    return Finding("state", "ok", says)


def _viewed(name: str, scene: Path, image: U1, source: Source) -> Finding:
    """Look at a few frames: a lorry may fill one."""
    try:
        watch = SceneWatch(Scene.load(scene), frames=_VIEWS)
    except DataError as error:
        return Finding("view", "fail", f"{name}: {error}", "roadcast devices commission, once its lines are drawn")
    fault, deadline = watch.fault(image), time.monotonic() + _FIRST_S
    for _ in range(_VIEWS - 1):
        frame = None if source.ended else source.read(max(0.0, deadline - time.monotonic()))
        if frame is not None and frame.image is not None:
            fault = watch.fault(frame.image)
    return view_finding(name, fault)


def _size(frame: Frame) -> str:
    return "readings" if frame.image is None else f"{frame.image.shape[1]}x{frame.image.shape[0]}"


def _rate(source: Source, watch_s: float) -> str:
    begun, frames = time.monotonic(), 0
    while time.monotonic() - begun < watch_s and frames < _MOST_FRAMES and not source.ended:
        frames += source.read(watch_s) is not None
    passed = time.monotonic() - begun
    return f", {frames / passed:.1f} frames a second" if frames and watch_s else ""
