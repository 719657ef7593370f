"""Where labels come from: what the installer gathered, a file that grows, operators; sensors wait for their own truth.

Owns the meaning of a label's name; the replay store owns the samples.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from zlib import crc32

import numpy as np

from devices.packs import ImagePack, SeriesPack, open_pack
from devices.preprocess import Preprocess
from edge_client.replay import PACKED, Kept
from edge_models.habits import sensor_numbers
from edge_models.samples import UNLABELLED
from edge_models.scales import Scale
from edge_models.windows import cut_with_ends
from edge_protocol.errors import DataError, StoreError
from edge_protocol.task import TaskSpec

MAX_LINE = 4096


def image_samples(pack: ImagePack, spec: TaskSpec, preprocess: Preprocess) -> Iterator[Kept]:
    """Labelled images of a commissioning pack; those without a label, or with one the task lacks, are left out.

    They come as if in order of time, those of a group, such as one vehicle, together: so no choice of head learns from
    what it is judged by (ADR-0032). Names hold row and content: an operator's label is of no other pack's picture.

    Args:
        pack: what the installer gathered.
        spec: the task.
        preprocess: the device's own.
    """
    targets = pack.labels_as(spec.labels).tolist()
    _, first, group = np.unique(pack.groups, return_index=True, return_inverse=True)
    for place, at in enumerate(np.argsort(first[group], kind="stable").tolist()):
        if targets[at] != UNLABELLED:
            side = pack.side[at] if spec.side else None
            name = f"{PACKED}{at}-{crc32(pack.images[at].tobytes()):08x}"
            yield Kept(name, float(place), preprocess.raw(pack.images[at]), targets[at], side)


def series_samples(pack: SeriesPack, spec: TaskSpec, scale: Scale) -> Iterator[Kept]:
    """Windows of a sensor's history, with what came after them and the number of the sensor, by its name."""
    numbers = sensor_numbers(pack.sensors)
    samples, ends_s = cut_with_ends(pack.values, pack.time_s, spec, scale, side=numbers)
    for at in np.flatnonzero(samples.labelled):
        target = samples.targets[at].astype(np.float32)
        name, end_s = f"{PACKED}{at}", float(ends_s[at])
        yield Kept(name, end_s, samples.raw[at], target, samples.side[at], samples.scale[at])


def open_commissioning(path: str, spec: TaskSpec) -> ImagePack | SeriesPack:
    """Open a commissioning pack of the task's kind.

    Raises:
        DataError: it cannot be read, is of the other kind, or brings other side inputs than the task has.
    """
    pack = open_pack(path)
    if isinstance(pack, SeriesPack) != (spec.kind == "forecast"):
        raise DataError(f"{path}: task {spec.name!r} needs {'a series' if spec.kind == 'forecast' else 'images'}")
    if isinstance(pack, ImagePack):
        try:
            pack = pack.with_side(spec.side)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        if not np.isfinite(pack.side).all():
            raise DataError(
                f"{path}: side inputs hold NaN or infinity; make the pack with what the plug-in's side says"
            )
    return pack


class LabelFile:
    """A CSV file of ``sample,label`` lines that may grow; each line is read once it is complete.

    Args:
        path: of the file; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0

    def poll(self) -> list[tuple[str, str]]:
        """New lines since the last call; a file that shrank is read anew, a line that is wrong is left out."""
        try:
            size = self._path.stat().st_size
            if size == self._at:
                return []
            self._at = 0 if size < self._at else self._at
            with self._path.open("rb") as file:
                file.seek(self._at)
                data = file.read()
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        rows = csv.reader(line[:MAX_LINE] for line in whole.decode(errors="replace").splitlines())
        return [(row[0].strip(), row[1].strip()) for row in rows if len(row) == 2]  # noqa: PLR2004 - sample and label

    def append(self, sample: str, label: str) -> None:
        """Add a line, whoever reads meanwhile; one that somebody left without an end is ended first.

        Raises:
            StoreError: it cannot be written.
        """
        line = StringIO()
        csv.writer(line, lineterminator="\n").writerow([sample, label])
        try:
            with self._path.open("a+b") as file:
                file.seek(max(file.tell() - 1, 0))
                ended = file.read() in {b"", b"\n"}
                file.write((line.getvalue() if ended else f"\n{line.getvalue()}").encode())
        except OSError as error:
            raise StoreError(f"{self._path}: {error}; the label was not noted") from error
