"""The parent's end of the decoding child: asks for frames, reads them without ever blocking, ends the child."""

from __future__ import annotations

import math
import os
import select
import subprocess
import sys
import time
from typing import IO, cast

import msgspec
import numpy as np

from devices.sources.base import U1
from devices.sources.decoder import END, FAILURE, FRAME, HEADER, MAX_SIDE, DecodeJob
from edge_protocol.errors import SourceError

_GRACE_S = 2.0
_MAX_TEXT = 4096


class DecodingChild:
    """One decoder process.

    Attributes:
        fps: the source's own rate, 0 while unknown.
        decode_s: seconds that decoding the last frame took; None: unknown.
        ended: the source's orderly end was reached.
    """

    def __init__(self, job: DecodeJob, shown: str) -> None:
        """Start the child. The job travels over its stdin: a camera's password shows up in no process list.

        Raises:
            SourceError: no process could be started.
        """
        self.fps, self.ended = 0.0, False
        self.decode_s: float | None = None
        self._shown = shown
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "devices.sources.decoder"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env=os.environ | {"OPENCV_LOG_LEVEL": "SILENT", "OMP_NUM_THREADS": "1"},
            )
        except OSError as error:
            raise SourceError(f"{shown}: the decoder cannot be started: {error}") from error
        self._out = cast("IO[bytes]", self._process.stdout)
        self._wishes = cast("IO[bytes]", self._process.stdin)
        os.set_blocking(self._out.fileno(), False)
        self._poll = select.poll()
        self._poll.register(self._out, select.POLLIN | select.POLLHUP)
        self._header = bytearray(HEADER.size)
        self._image: U1 | None = None
        self._text = bytearray()
        self._got = 0
        self._write(msgspec.json.encode(job) + b"\n")

    def ask(self) -> None:
        """Ask for one more frame."""
        self._write(b".")

    def receive(self, timeout_s: float) -> U1 | None:
        """(H, W, 3) uint8 RGB, or None when it is not all there after `timeout_s` seconds or the source has ended.

        Raises:
            SourceError: the child failed or died; what it said, or its signal.
        """
        deadline = time.monotonic() + timeout_s
        while not self.ended:
            if self._fill(self._header, 0, deadline) and self._begin() and self._fill_body(deadline):
                image, self._image, self._got = self._image, None, 0
                return image
            if time.monotonic() >= deadline:
                break
        return None

    def close(self) -> None:
        """End the child, by force if it does not go."""
        for pipe in (self._wishes, self._out):
            pipe.close()
        try:
            self._process.terminate()
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _write(self, data: bytes) -> None:
        try:
            self._wishes.write(data)
        except (BrokenPipeError, ValueError):
            return  # it is gone; `receive` will find out why

    def _begin(self) -> bool:
        """The header is complete: make room for what follows; False when nothing does."""
        if self._image is not None or self._text:
            return True
        kind, height, width, fps, decode_s = HEADER.unpack(self._header)
        if kind == FRAME and 0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE:
            self.fps, self.decode_s = fps, decode_s if math.isfinite(decode_s) else None
            self._image = np.empty((height, width, 3), np.uint8)
            return True
        if kind == FAILURE and height <= _MAX_TEXT:
            self._text = bytearray(height)
            return True
        if kind == END:
            self.ended = True
            return False
        raise SourceError(f"{self._shown}: the decoder answered nonsense: damaged by what it read; re-encode the clip")

    def _fill_body(self, deadline: float) -> bool:
        if self._image is not None:
            return self._fill(self._image.reshape(-1).data, HEADER.size, deadline)
        if self._fill(self._text, HEADER.size, deadline):
            raise SourceError(f"{self._shown}: {self._text.decode(errors='replace')}")
        return False

    def _fill(self, room: bytearray | memoryview, start: int, deadline: float) -> bool:
        """Read on into `room`, which begins `start` bytes after the header's begin; True once it is full."""
        view = memoryview(room)
        while self._got < start + len(view):
            if not self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return False
            count = cast("int | None", self._out.readinto(view[self._got - start :]))  # type: ignore[attr-defined]
            if count == 0:
                raise SourceError(self._obituary())
            self._got += count or 0
        return True

    def _obituary(self) -> str:
        try:
            code = self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            code = 0
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return f"{self._shown}: the decoder {how}: the clip or stream is malformed; check or re-encode it"
