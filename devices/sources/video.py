"""Video files and cameras: paced, watched, and reconnected; the decoding happens in a child process.

A file that fails raises. A live camera that stalls, ends or fails is reconnected with growing pauses, and while it is
away one frame with the fault ``stalled`` is delivered per turn, so that its absence is counted.
"""

from __future__ import annotations

import math
import random
import time

from devices.closing import Closing
from devices.sources.base import U1, Frame, Pace
from devices.sources.child import DecodingChild
from devices.sources.decoder import DecodeJob
from devices.sources.quality import FrameCheck
from edge_protocol.errors import SourceError

_AHEAD = 2
_OPENING_S = 15.0
_RETRY_S = 1.0
_MAX_RETRY_S = 60.0
_FALLBACK_FPS = 25.0


class VideoSource(Closing):
    """Plays one video or camera.

    Attributes:
        reconnects: how often a live camera had to be opened again.
        last_error: why, the last time.
    """

    def __init__(
        self,
        job: DecodeJob,
        *,
        name: str,
        shown: str,
        rate_hz: float | None,
        stall_s: float,
        frozen_after_s: float,
    ) -> None:
        """Start decoding.

        Args:
            job: what to decode.
            name: the source's name.
            shown: its address without secrets.
            rate_hz: frames a second to deliver; None for the source's own rate, inf for as fast as asked.
            stall_s: age of the last frame at which the source counts as stalled.
            frozen_after_s: age of an unchanged picture at which it counts as frozen.
        """
        self.reconnects, self.last_error = 0, ""
        self._job, self._name, self._shown, self._rate_hz, self._stall_s = job, name, shown, rate_hz, stall_s
        self._check = FrameCheck(frozen_after_s)
        self._pace = Pace(rate_hz)
        self._child: DecodingChild | None = None
        self._named_ms = self._count = self._failures = self._asked = 0
        self._ended = self._due = self._flowing = False
        self._retry_at = self._waiting_since = time.monotonic()
        self._connect()

    @property
    def ended(self) -> bool:
        """Whether a file has come to its end; a camera never ends."""
        return self._ended

    def close(self) -> None:
        """End the child."""
        self._ended = True
        self._drop()

    def read(self, timeout_s: float) -> Frame | None:
        """The next frame at this moment's time.

        Raises:
            SourceError: a file cannot be decoded or stalls; nothing more will come.
        """
        deadline = time.monotonic() + timeout_s
        if self._ended or not self._turn(timeout_s):
            return None
        if self._child is None and time.monotonic() >= self._retry_at:
            self._connect()
        image = None
        if self._child is not None:
            try:
                image = self._receive(self._child, max(0.0, deadline - time.monotonic()))
            except SourceError as error:
                self._fail(error)
        if image is None and (self._child is not None or self._ended):
            return None
        self._due = False
        return self._frame(image)

    def _turn(self, timeout_s: float) -> bool:
        """Wait for the turn; once it is there it stays until a frame was delivered."""
        if not self._due:
            self._due = self._pace.sleep(timeout_s)
        return self._due

    def _receive(self, child: DecodingChild, timeout_s: float) -> U1 | None:
        ahead = 1 if self._job.live else _AHEAD
        while self._asked < ahead:
            if not self._asked:
                self._waiting_since = time.monotonic()
            child.ask()
            self._asked += 1
        image = child.receive(timeout_s)
        if image is not None:
            self._asked -= 1
            self._waiting_since = time.monotonic()
            self._failures, self._flowing = 0, True
        elif child.ended:
            if self._job.live:
                raise SourceError(f"{self._shown}: the stream ended")
            self.close()
        else:
            limit_s = self._stall_s if self._flowing else max(self._stall_s, _OPENING_S)
            if time.monotonic() - self._waiting_since > limit_s:
                raise SourceError(f"{self._shown}: no frame for {limit_s:g} s; check camera, cable and network")
        if self._rate_hz is None and child.fps:
            self._pace.rate_hz = child.fps if math.isfinite(child.fps) else _FALLBACK_FPS
        return image

    def _frame(self, image: U1 | None) -> Frame:
        self._count, at_s = self._count + 1, time.time()
        self._named_ms = max(int(at_s * 1e3), self._named_ms + 1)
        return Frame(
            sample=f"{self._name}-{self._named_ms}",
            at_s=at_s,
            image=image,
            fault="stalled" if image is None else self._check.fault(image, time.monotonic()),
            decode_s=None if image is None or self._child is None else self._child.decode_s,
        )

    def _fail(self, error: SourceError) -> None:
        self._drop()
        if not self._job.live:
            self._ended = True
            raise error
        self.last_error = str(error)
        pause_s = min(_MAX_RETRY_S, _RETRY_S * 2**self._failures)
        self._failures = min(self._failures + 1, 16)
        self._retry_at = time.monotonic() + random.uniform(0.5, 1.0) * pause_s
        if not self._pace.rate_hz:
            self._pace.rate_hz = 1.0

    def _connect(self) -> None:
        self.reconnects += self._count > 0 or bool(self._failures)
        self._waiting_since = time.monotonic()
        try:
            self._child = DecodingChild(self._job, self._shown)
        except SourceError as error:
            self._fail(error)

    def _drop(self) -> None:
        self._asked, self._flowing = 0, False
        if self._child is not None:
            self._child.close()
            self._child = None
