"""The child process that decodes video: a malformed clip that corrupts the heap must not take the agent along.

Owns OpenCV's `VideoCapture` and nothing else. The parent (`devices.sources.child`) writes the job as one JSON line to
stdin, then one byte per frame it wants; each is answered on stdout by a header and raw pixels. So at most a few frames
are ever in flight, and a live camera is asked for its newest picture, never for a queue. Stdin's end ends the child.
"""

from __future__ import annotations

import math
import os
import resource
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from devices.opencv import opencv
from edge_protocol.errors import RoadcastError, SourceError

U1 = npt.NDArray[np.uint8]
HEADER = struct.Struct("<4sIIdd")
"""Kind, height (or bytes of text), width, the source's frames a second (0: unknown), seconds of decoding (or NaN)."""
FRAME, END, FAILURE = b"RCFR", b"RCEN", b"RCER"
MAX_SIDE = 8192

_OPEN_TIMEOUT_MS = 10_000
_WAIT_S = 1.0

Backend = Literal["file", "network", "v4l2", "gstreamer"]


class DecodeJob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to decode.

    Attributes:
        backend: how to open it.
        target: path, URI, device or GStreamer pipeline.
        loop: start a file again at its end.
        width: width to deliver (a file or network picture is only ever shrunk to it), 0 for the source's own.
        height: height to ask a camera for, 0 for its own.
        fps: rate to ask a camera for, 0 for its own.
    """

    backend: Backend
    target: str
    loop: bool = False
    width: int = 0
    height: int = 0
    fps: float = 0.0

    @property
    def live(self) -> bool:
        """Whether the world does not wait for the reader."""
        return self.backend != "file"


def open_capture(job: DecodeJob) -> Any:  # noqa: ANN401 - OpenCV's own type
    """An opened `VideoCapture`.

    Raises:
        SourceError: it cannot be opened.
    """
    cv2 = opencv()
    cv2.setNumThreads(1)
    if job.backend == "v4l2":
        wanted = {cv2.CAP_PROP_FRAME_WIDTH: job.width, cv2.CAP_PROP_FRAME_HEIGHT: job.height, cv2.CAP_PROP_FPS: job.fps}
        capture = cv2.VideoCapture(job.target, cv2.CAP_V4L2)
        for key, value in wanted.items():
            if value:
                capture.set(key, value)
    elif job.backend == "gstreamer":
        capture = cv2.VideoCapture(job.target, cv2.CAP_GSTREAMER)
    else:
        only = "file" if job.backend == "file" else "rtp,udp,tcp,rtsp,tls,crypto"
        options = f"protocol_whitelist;{only}|rtsp_transport;tcp|threads;1"
        os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = options
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _OPEN_TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _OPEN_TIMEOUT_MS]
        capture = cv2.VideoCapture(job.target, cv2.CAP_FFMPEG, limits)
    if not capture.isOpened():
        raise SourceError("cannot be opened: not a video that this OpenCV decodes, or nothing answers there")
    return capture


def frames_of(job: DecodeJob, capture: Any) -> Callable[[], U1 | None]:  # noqa: ANN401 - OpenCV's own type
    """A function that gives the next frame, (H, W, 3) uint8 RGB: None at the end."""
    if job.live:
        return _Newest(capture).take
    held = [capture]

    def following() -> U1 | None:
        there, image = held[0].read()
        if not there and job.loop:
            held[0].release()
            held[0] = open_capture(job)
            there, image = held[0].read()
        return image if there else None

    return following


class _Newest:
    """Keeps reading a camera and holds on to its newest picture only."""

    def __init__(self, capture: Any) -> None:  # noqa: ANN401 - OpenCV's own type
        self._capture = capture
        self._there = threading.Condition()
        self._image: U1 | None = None
        self._over = False
        self._parent = os.getppid()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while not self._over:
            there, image = self._capture.read()
            with self._there:
                self._image, self._over = image, not there
                self._there.notify_all()

    def take(self) -> U1 | None:
        """Wait for a picture that was not taken yet; None when the camera is gone, or the parent."""
        with self._there:
            while self._image is None and not self._over and os.getppid() == self._parent:
                self._there.wait(_WAIT_S)
            image, self._image = self._image, None
            return image


def prepare(image: U1, width: int) -> U1:
    """Shrink to `width` (0: leave) and turn OpenCV's BGR into RGB.

    Raises:
        SourceError: larger than any camera's picture.
    """
    cv2 = opencv()
    if image.ndim != 3 or max(image.shape[:2]) > MAX_SIDE:  # noqa: PLR2004 - height, width, colours
        raise SourceError(f"a picture of {image.shape} is not one of at most {MAX_SIDE} pixels a side in colour")
    if 0 < width < image.shape[1]:
        height = max(1, round(image.shape[0] * width / image.shape[1]))
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    rgb: U1 = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return rgb


def serve(wishes: BinaryIO, out: BinaryIO, open_: Callable[[DecodeJob], Any] = open_capture) -> None:
    """Answer each wish with a frame, until there are no more of either."""
    try:
        job = msgspec.json.decode(wishes.readline(), type=DecodeJob)
        capture = open_(job)
        fps = float(capture.get(opencv().CAP_PROP_FPS) or 0)
        following, count = frames_of(job, capture), 0
        while wishes.read(1):
            begun = time.perf_counter()
            image = following()
            if image is None:
                if not count:
                    raise SourceError("no picture could be decoded")
                out.write(HEADER.pack(END, 0, 0, fps, 0.0))
                break
            image, count = prepare(image, job.width), count + 1
            spent_s = math.nan if job.live else time.perf_counter() - begun  # of a camera most of it is waiting
            out.write(HEADER.pack(FRAME, *image.shape[:2], fps, spent_s))
            out.write(image.data)
            out.flush()
    except (RoadcastError, msgspec.MsgspecError, opencv().error) as error:
        text = str(error).encode()[:4096]
        out.write(HEADER.pack(FAILURE, len(text), 0, 0.0, 0.0) + text)
    out.flush()


def main() -> None:
    """Run as the child."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with open(0, "rb", buffering=0) as wishes:  # unbuffered: a wish is one byte
            serve(wishes, sys.stdout.buffer)
    except BrokenPipeError:
        pass
    finally:
        os._exit(0)  # a reader thread may still hang in the driver


if __name__ == "__main__":
    main()
