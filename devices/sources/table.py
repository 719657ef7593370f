"""A CSV file that a logger writes: a timestamp and one column per sensor, read as it grows.

An empty cell is a missing reading, never 0. A line is read once it is complete; a line that is wrong is counted and
skipped. When the logger starts the file anew, reading starts anew.
"""

from __future__ import annotations

import csv
import math
import os
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO

import numpy as np

from devices.closing import Closing
from devices.sources.base import Frame, Pace
from edge_protocol.errors import SourceError

MAX_LINE_BYTES = 1 << 20
MAX_SENSORS = 10_000
_POLL_S = 0.2


def parse_time(text: str) -> float:
    """Seconds since the epoch from a number, or from ISO 8601 (without a zone: UTC).

    Raises:
        ValueError: neither.
    """
    try:
        at_s = float(text)
    except ValueError:
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
        at_s = (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    if not math.isfinite(at_s):
        raise ValueError(f"{text!r} is no time")
    return at_s


def parse_row(cells: list[str], sensors: int) -> tuple[float, np.ndarray[tuple[int], np.dtype[np.float32]]]:
    """A line's time and its readings, (S,) float32, NaN where the cell is empty.

    Raises:
        ValueError: another number of cells, or one that is no finite number.
    """
    if len(cells) != sensors + 1:
        raise ValueError(f"{len(cells)} cells, the header has {sensors + 1}")
    values = np.array([float(cell) if cell.strip() else math.nan for cell in cells[1:]], np.float32)
    if np.isinf(values).any():
        raise ValueError("a reading is infinite")
    return parse_time(cells[0]), values


class TableSource(Closing):
    """Reads a CSV file row by row.

    Attributes:
        sensors: names of the columns after the first.
        rejected: lines that were skipped because they were wrong.
    """

    def __init__(self, path: Path, *, name: str, pace: Pace, loop: bool, follow: bool) -> None:
        """Args: follow: wait for more at the end of the file instead of ending; loop: start again at its end.

        Raises:
            SourceError: the file cannot be read, or its header is no header.
        """
        self._path, self._name, self._pace = path, name, pace
        self._loop, self._follow = loop, follow
        self.rejected = 0
        self._ended = self._any_row = False
        self._file: BinaryIO | None = None
        self.sensors: tuple[str, ...] = ()
        self._open()

    @property
    def ended(self) -> bool:
        """Whether the end of a file that nobody writes was reached."""
        return self._ended

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        self._file, self._ended = None, True

    def read(self, timeout_s: float) -> Frame | None:
        """The next complete row; its time is the row's own.

        Raises:
            SourceError: the file is gone, or began anew with a header that is no header.
        """
        deadline = time.monotonic() + timeout_s
        if self._ended or not self._pace.sleep(timeout_s):
            return None
        while True:
            line = self._line()
            if line is not None:
                frame = self._frame(line)
                if frame is not None:
                    return frame
                continue
            if not self._more() or time.monotonic() >= deadline:
                return None
            time.sleep(min(_POLL_S, max(0.0, deadline - time.monotonic())))

    def _open(self) -> None:
        try:
            self._file = self._path.open("rb")
        except OSError as error:
            raise SourceError(f"{self._path}: cannot be read: {error.strerror or error}; check the path") from error
        header = self._cells(self._line() or b"")
        if not 2 <= len(header) <= MAX_SENSORS + 1:  # noqa: PLR2004 - a time and one sensor
            self.close()
            raise SourceError(f"{self._path}: the first line must name a time column and 1 to {MAX_SENSORS} sensors")
        self.sensors = tuple(cell.strip() for cell in header[1:])

    def _line(self) -> bytes | None:
        """The next complete line, or None when it is not all there yet."""
        assert self._file is not None
        start = self._file.tell()
        line = self._file.readline(MAX_LINE_BYTES)
        if line.endswith(b"\n") or len(line) == MAX_LINE_BYTES or (line and not self._follow):
            return line
        self._file.seek(start)
        return None

    def _frame(self, line: bytes) -> Frame | None:
        try:
            at_s, readings = parse_row(self._cells(line), len(self.sensors))
        except ValueError:
            self.rejected += 1
            return None
        self._any_row = True
        return Frame(sample=f"{self._name}-{int(at_s)}", at_s=at_s, readings=readings)

    @staticmethod
    def _cells(line: bytes) -> list[str]:
        try:
            return next(csv.reader([line.decode("utf-8-sig").rstrip("\r\n")]), [])
        except (UnicodeDecodeError, csv.Error):
            return []

    def _more(self) -> bool:
        """At the end of what is there: may more come? Reopens a file that began anew."""
        assert self._file is not None
        if self._loop and self._any_row:
            self._reopen()
        elif not self._follow:
            self.close()
        elif self._began_anew():
            self._reopen()
        return not self._ended

    def _began_anew(self) -> bool:
        assert self._file is not None
        try:
            there, held = self._path.stat(), os.fstat(self._file.fileno())
        except OSError:
            return False  # between two log files; the old one stays open until the new one is there
        return there.st_ino != held.st_ino or there.st_size < self._file.tell()

    def _reopen(self) -> None:
        if self._file is not None:
            self._file.close()
        self._open()
