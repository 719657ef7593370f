"""How the sources fare while they work: the age of the last good frame or row; is the view the commissioned one?

Costs a frame two assignments; the view is looked at when the board is sampled, in that thread. Owns no camera.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Literal

from devices.closing import Closing
from devices.sources import Frame, Source
from devices.telemetry.scene import FAULTS, U1, Scene, SceneWatch
from edge_client.inference import Feed
from edge_protocol.errors import DataError

LOG = logging.getLogger(__name__)
Kind = Literal["camera_frame", "logger_row"]
LONGEST = 64
"""Of a reading's name on the wire."""


def scene_file(state_dir: Path, source: str) -> Path:
    """Where the scene of a camera is remembered."""
    return state_dir / "scenes" / f"{source}.npz"


@dataclass(eq=False, slots=True)
class _Camera:
    """What is known of one source.

    Attributes:
        kind: ``camera_frame`` or ``logger_row``.
        period_s: seconds from one frame or row to the next, where that is known.
        at: when its last good one came, seconds of `time.monotonic`; None before the first.
        image: the newest picture that was not looked at.
        watch: for the scene whose file was written at `dated` (ns); None without one.
    """

    kind: Kind
    period_s: float | None
    at: float | None = None
    image: U1 | None = None
    watch: SceneWatch | None = None
    dated: int = 0


class Cameras:
    """Notes good frames in the threads that read them, and tells of them in another.

    Args:
        state_dir: scenes lie there; one that is commissioned anew is taken at the next reading.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._cameras: dict[str, _Camera] = {}

    def watch(self, feed: Feed, *, kind: Kind = "camera_frame", period_s: float | None = None) -> Feed:
        """Note the frames of a feed from now on; returns the same feed.

        Args:
            feed: of one source.
            kind: what it delivers.
            period_s: seconds from one to the next, so that a slow source is not taken for a silent one.
        """
        camera, opener = self._cameras.setdefault(feed.name, _Camera(kind, period_s)), feed.opener
        feed.opener = lambda: _Noted(opener(), camera)
        return feed

    def readings(self, now: float) -> dict[str, float]:
        """What can be said of each source: nothing before its first frame, nothing of the view without a scene.

        Args:
            now: seconds of `time.monotonic`.
        """
        found: dict[str, float] = {}
        for name, camera in self._cameras.items():
            if camera.at is not None:
                found[f"{camera.kind}_age_seconds.{name}"[:LONGEST]] = max(0.0, now - camera.at)
                if camera.period_s is not None:
                    found[f"{camera.kind}_period_seconds.{name}"[:LONGEST]] = camera.period_s
            image, camera.image = camera.image, None
            self._follow(name, camera)
            if image is not None and camera.watch is not None:
                fault = camera.watch.fault(image)
                found[f"camera_view_fault.{name}"[:LONGEST]] = 0.0 if fault is None else 1.0 + FAULTS.index(fault)
        return found

    def _follow(self, name: str, camera: _Camera) -> None:
        """Take the scene that lies there now."""
        path = scene_file(self._state_dir, name)
        try:
            dated = path.stat().st_mtime_ns
        except OSError:
            camera.watch, camera.dated = None, 0
            return
        if dated == camera.dated:
            return
        camera.dated = dated
        try:
            camera.watch = SceneWatch(Scene.load(path))
        except DataError as error:
            camera.watch = None
            LOG.warning("the view is not watched: %s", error)


class _Noted(Closing):
    """A source whose good frames are noted."""

    def __init__(self, source: Source, camera: _Camera) -> None:
        self._source, self._camera = source, camera

    @property
    def ended(self) -> bool:
        """Whether no frame will come any more."""
        return self._source.ended

    def read(self, timeout_s: float) -> Frame | None:
        """The source's next frame."""
        frame = self._source.read(timeout_s)
        if frame is not None and frame.fault is None:
            self._camera.at, self._camera.image = monotonic(), frame.image
        return frame

    def close(self) -> None:
        """Close the source."""
        self._source.close()
