"""Packs from what users have: a folder of images with a sub-folder per class, or a CSV file of readings."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from devices.opencv import opencv
from devices.packs import UNLABELLED, ImagePack, SeriesPack
from devices.packs.npz import MAX_BYTES
from devices.sources.base import U1, Frame
from devices.sources.folder import image_files, label_of, read_image, read_record
from devices.sources.table import MAX_SENSORS, parse_row
from edge_client.side_inputs import SideInputs
from edge_models.samples import F4
from edge_protocol.errors import DataError, SourceError
from edge_protocol.task import TaskSpec

_NAMED = 5


@dataclass(frozen=True)
class Skipped:
    """What could not be taken over.

    Attributes:
        what: ``images`` or ``lines``.
        reasons: one per thing, beginning with its name.
    """

    what: str
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        shown = "; ".join(self.reasons[:_NAMED])
        more = len(self.reasons) - _NAMED
        return f"{len(self.reasons)} {self.what} skipped: {shown}" + (f"; and {more} more" if more > 0 else "")


def import_images(
    folder: Path, *, size: int, test_share: float, spec: TaskSpec | None = None, seed: int = 0
) -> tuple[ImagePack, Skipped]:
    """A pack of all images of a folder, squeezed to `size` by `size` pixels.

    Args:
        folder: with one sub-folder per class; images beside the sub-folders are unlabelled.
        size: pixels a side.
        test_share: part of each class that is set aside for testing.
        spec: task whose plug-in reads the records beside the images into its own side inputs, as a device does; an
            image without one has zeros, one whose record is refused is skipped. None, or one without side inputs:
            records are not looked at, for annotations lie beside images too.
        seed: which part.

    Raises:
        ConfigError: the plug-in cannot be used.
        DataError: no folder, no readable image in it, or more than a pack may hold.
    """
    try:
        files = image_files(folder)
    except SourceError as error:
        raise DataError(str(error)) from error
    if len(files) * size * size * 3 > MAX_BYTES:
        raise DataError(
            f"{folder}: {len(files)} images of {size} pixels exceed {MAX_BYTES >> 20} MiB; use a smaller --size"
        )
    images = np.empty((len(files), size, size, 3), np.uint8)
    names, inputs = (spec.side, SideInputs(spec)) if spec is not None and spec.side else ((), None)
    side = np.zeros((len(files), len(names)), np.float32)
    kept: list[str] = []
    reasons: list[str] = []
    for file in files:
        try:
            image, found = _read(file, inputs)
        except (DataError, SourceError) as error:
            reasons.append(f"{file.relative_to(folder)}: {error}")
            continue
        side[len(kept)] = 0 if found is None else found
        images[len(kept)] = opencv().resize(image, (size, size), interpolation=opencv().INTER_AREA)
        kept.append(label_of(file, folder))
    if not kept:
        raise DataError(f"{folder}: none of its {len(files)} images can be read: {reasons[0]}")
    classes = tuple(sorted({name for name in kept if name}))
    labels = np.array([classes.index(name) if name else UNLABELLED for name in kept], np.int64)
    split = _split(labels, test_share, seed)
    pack = ImagePack.of(
        images[: len(kept)], classes=classes, labels=labels, side=side[: len(kept)], side_names=names, split=split
    )
    return pack, Skipped("images", tuple(reasons))


def _split(labels: npt.NDArray[np.int64], test_share: float, seed: int) -> npt.NDArray[np.uint8]:
    """(N,) uint8, 1 for the test part of each class."""
    rng = np.random.default_rng(seed)
    split = np.zeros(len(labels), np.uint8)
    for label in np.unique(labels[labels != UNLABELLED]):
        members = rng.permutation(np.flatnonzero(labels == label))
        split[members[: round(test_share * len(members))]] = 1
    return split


def _read(file: Path, inputs: SideInputs | None) -> tuple[U1, F4 | None]:
    image = read_image(file)
    if image is None:
        raise DataError("not a readable image")
    return image, inputs.of(Frame(sample=file.name, at_s=0, record=read_record(file))) if inputs else None


def import_table(path: Path, *, unit: str, interval_s: float | None) -> tuple[SeriesPack, Skipped]:
    """A pack of a CSV file: first column time, then one column per sensor; an empty cell is a missing reading.

    Rows are laid on an even grid; where the file has a gap, readings are missing (NaN), never 0.

    Args:
        path: the file.
        unit: of the readings.
        interval_s: seconds between rows; None for the commonest distance.

    Raises:
        DataError: no file, no header, or fewer than two good rows.
    """
    sensors, times, rows, reasons = _read_table(path)
    if len(times) < 2:  # noqa: PLR2004 - an interval needs two ends
        raise DataError(f"{path}: {len(times)} good rows; at least two are needed. {Skipped('lines', tuple(reasons))}")
    order = np.argsort(times, kind="stable")
    time_s, values = np.array(times)[order], np.array(rows, np.float32)[order]
    steps = np.diff(time_s)
    if not (steps > 0).any():
        raise DataError(f"{path}: all rows have the same time; is the first column the time?")
    step_s = interval_s or float(np.median(steps[steps > 0]))
    places = np.rint((time_s - time_s[0]) / step_s).astype(np.int64)
    count = int(places[-1]) + 1
    if count * len(sensors) * 4 > MAX_BYTES:
        raise DataError(
            f"{path}: {count} rows of {step_s:g} s exceed {MAX_BYTES >> 20} MiB; name a larger --interval-s"
        )
    repeated = len(places) - len(np.unique(places))
    if repeated:
        reasons.append(f"{repeated} rows that share a place on the grid of {step_s:g} s: the last one counts")
    grid = np.full((count, len(sensors)), np.nan, np.float32)
    grid[places] = values
    pack = SeriesPack(
        values=grid,
        time_s=time_s[0] + step_s * np.arange(count),
        interval_s=step_s,
        sensors=sensors,
        unit=unit,
    )
    return pack, Skipped("lines", tuple(reasons))


def _read_table(path: Path) -> tuple[tuple[str, ...], list[float], list[npt.NDArray[np.float32]], list[str]]:
    times, rows, reasons = [], [], []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file)
            sensors = tuple(name.strip() for name in next(lines, [])[1:])
            if not 1 <= len(sensors) <= MAX_SENSORS or len(set(sensors)) < len(sensors):
                raise DataError(
                    f"{path}: the first line must name a time column and 1 to {MAX_SENSORS} different sensors"
                )
            for cells in lines:
                try:
                    at_s, values = parse_row(cells, len(sensors))
                except ValueError as error:
                    reasons.append(f"line {lines.line_num}: {error}")
                    continue
                times.append(at_s)
                rows.append(values)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}; check the path") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file in UTF-8: {error}") from error
    return sensors, times, rows, reasons
