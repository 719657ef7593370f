"""A folder of images as a source; a file that is no image is a frame with a fault, not the end of the run.

Beside ``a.jpg`` may lie ``a.json``, what else is known of it: ``{"age": 61, "pulse": null}``. Where records are
asked for, an image whose own is damaged has a fault too: an answer without the readings would be another one.
"""

from __future__ import annotations

import logging
import os
import time
from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np

from devices.closing import Closing
from devices.opencv import opencv
from devices.sources.base import U1, Frame, Pace
from devices.sources.quality import FrameCheck
from edge_protocol.errors import SourceError

LOG = logging.getLogger(__name__)
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})
MAX_FILE_BYTES = 64 << 20
MAX_RECORD_BYTES = 64 << 10
MAX_NAME = 60
"""Longest name of a sample: what an operator's message takes, and a number behind it."""


def image_files(folder: Path) -> list[Path]:
    """The images below a folder, in the order of their names.

    Raises:
        SourceError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder; check the path")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise SourceError(f"{folder}: no image in it (looked for {', '.join(sorted(SUFFIXES))})")
    return files


def label_of(file: Path, folder: Path) -> str:
    """The label of an image below a folder: its first sub-folder's name, however deep it lies; "" beside them."""
    parts = file.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else ""


def sample_name(source: str, path: Path) -> str:
    """Name a sample after its path below the folder, ``ward/refer/a.png``; a long one by a hash and its end."""
    data = os.fsencode(path)
    name = data.decode(errors="backslashreplace")
    room = max(MAX_NAME - len(source) - 1, 24)
    return f"{source}/{name if len(name) <= room else f'{sha256(data).hexdigest()[:12]}/{name[13 - room :]}'}"


def read_image(file: Path) -> U1 | None:
    """(H, W, 3) uint8 RGB, or None when the file is no readable image of a sane size."""
    return _decoded(_bytes_of(file))


def _bytes_of(file: Path) -> U1 | None:
    try:
        return np.fromfile(file, np.uint8) if 0 < file.stat().st_size <= MAX_FILE_BYTES else None
    except OSError:
        return None


def _decoded(data: U1 | None) -> U1 | None:
    cv2 = opencv()
    try:
        image = None if data is None else cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error:  # OpenCV raises for a picture of more pixels than its own limit
        return None
    return None if image is None else np.ascontiguousarray(image[:, :, ::-1])


def read_record(image: Path) -> dict[str, str] | None:
    """The readings beside an image by name, as text, "" for null; None where there are none.

    Raises:
        SourceError: they cannot be read, are too long, or no JSON object of texts and numbers.
    """
    file = image.with_suffix(".json")
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_RECORD_BYTES + 1)
        if len(text) > MAX_RECORD_BYTES:
            raise SourceError(f"{file}: a record takes at most {MAX_RECORD_BYTES} bytes")
        found = msgspec.json.decode(text, type=dict[str, str | int | float | None])
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SourceError(f"{file}: no record of readings, an object of texts and numbers: {error}") from error
    return {name: "" if value is None else str(value) for name, value in found.items()}


class FolderSource(Closing):
    """Plays the images of a folder; with `labels`, each with what `label_of` finds, with `records` what is beside."""

    def __init__(self, folder: Path, *, name: str, pace: Pace, loop: bool, labels: bool, records: bool) -> None:
        """Raises: SourceError: no folder, or no image in it."""
        self._folder, self._files = folder, image_files(folder)
        self._name, self._pace, self._loop, self._labels, self._records = name, pace, loop, labels, records
        self._check = FrameCheck(frozen_after_s=float("inf"))
        self._next = 0

    @property
    def ended(self) -> bool:
        """Whether the last image was delivered."""
        return self._next >= len(self._files) and not self._loop

    def read(self, timeout_s: float) -> Frame | None:
        """The next image, at this moment's time; None before its turn."""
        if self.ended or not self._pace.sleep(timeout_s):
            return None
        file, now = self._files[self._next % len(self._files)], time.time()
        self._next += 1
        data, begun = _bytes_of(file), time.perf_counter()
        image = _decoded(data)
        took_s = time.perf_counter() - begun
        record, fault = None, "unreadable" if image is None else self._check.fault(image, now)
        try:
            record = read_record(file) if self._records else None
        except SourceError as error:
            fault = "unreadable"
            LOG.warning("%s", error)
        return Frame(
            sample=sample_name(self._name, file.relative_to(self._folder)),
            at_s=now,
            image=image,
            label=label_of(file, self._folder) or None if self._labels else None,
            record=record,
            fault=fault,
            decode_s=took_s,
        )
