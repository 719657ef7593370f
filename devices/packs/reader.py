"""From a file to a pack: our own layout, and the layouts of the public data sets that we learn from.

A layout is known by the names of its arrays. Owns no file format (`npz`) and no rule of what fits together (`pack`).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from devices.opencv import opencv
from devices.packs.card import Card, check_hash, read_card
from devices.packs.npz import MAX_BYTES, Arrays, read_arrays
from devices.packs.pack import F4, U1, ImagePack, Pack, SeriesPack
from edge_protocol.errors import DataError

_MINUTE_S = 60.0
_QUARTER_HOUR_S = 900.0


def open_pack(path: str | Path) -> Pack:
    """Open a data pack and hold it against its card where there is one.

    Raises:
        DataError: missing, truncated, changed, or of a shape that is no pack; the message says what to do.
    """
    place = Path(path)
    card = read_card(place)
    if card is not None and place.exists():
        check_hash(place, card)
    arrays = read_arrays(place)
    for needed, read in _LAYOUTS:
        if needed <= arrays.keys():
            try:
                return read(arrays, card)
            except (DataError, TypeError, ValueError, IndexError, OverflowError) as error:
                raise DataError(f"{place}: {error}; fetch or make the pack again") from error
    raise DataError(
        f"{place}: arrays {', '.join(sorted(arrays)) or 'none'} are no known layout: `roadcast data import` makes packs"
    )


def _images(arrays: Arrays, card: Card | None) -> ImagePack:
    images = arrays["images"] if "images" in arrays else _decode(arrays["jpeg_blob"], arrays["offsets"])
    classes = _names(arrays["classes"]) if "classes" in arrays else card.classes if card else None
    if classes is None:
        raise DataError("the class names are neither in the file nor on a card beside it; fetch the card too")
    return ImagePack.of(
        images,
        classes=classes,
        labels=arrays.get("labels"),
        side=arrays.get("side"),
        side_names=_names(arrays["side_names"]) if "side_names" in arrays else (),
        groups=arrays.get("group"),
        split=arrays.get("split"),
    )


def _decode(blob: U1, offsets: Any) -> U1:  # noqa: ANN401 - checked here
    """(N, H, W, 3) uint8 RGB from JPEGs laid end to end; all of one size, bounded before the memory is taken."""
    cv2 = opencv()
    edges = np.asarray(offsets, np.int64)
    if edges.ndim != 1 or len(edges) == 0 or edges[0] < 0 or edges[-1] > len(blob) or (np.diff(edges) <= 0).any():
        raise DataError("the offsets of the JPEG images do not rise within the blob")
    images: U1 | None = None
    for i, (start, end) in enumerate(pairwise(edges)):
        image = cv2.imdecode(blob[start:end], cv2.IMREAD_COLOR)
        if image is None:
            raise DataError(f"JPEG image {i} cannot be decoded")
        if images is None:
            if (len(edges) - 1) * image.size > MAX_BYTES:
                raise DataError(f"{len(edges) - 1} images of {image.shape} would take more than {MAX_BYTES >> 20} MiB")
            images = np.empty((len(edges) - 1, *image.shape), np.uint8)
        if image.shape != images.shape[1:]:
            raise DataError(f"JPEG image {i} is {image.shape}, the first is {images.shape[1:]}")
        images[i] = image[:, :, ::-1]
    return np.empty((0, 1, 1, 3), np.uint8) if images is None else images


def _series(arrays: Arrays, _: Card | None) -> SeriesPack:
    return SeriesPack(
        values=arrays["values"],
        time_s=arrays["time_s"].astype(np.float64),
        interval_s=float(arrays["interval_s"]),
        sensors=_names(arrays["sensors"]),
        unit=str(arrays["unit"]),
        distance=arrays.get("distance"),
    )


def _los_loop(arrays: Arrays, _: Card | None) -> SeriesPack:
    """METR-LA as published with T-GCN: minutes since the epoch, and exp(-(d/width)²) instead of the distance d."""
    time_s = arrays["time"].astype(np.float64) * _MINUTE_S
    return SeriesPack(
        values=arrays["speed"],
        time_s=time_s,
        interval_s=float(np.median(np.diff(time_s))),
        sensors=_names(arrays["sensor_id"]),
        unit="mph",
        distance=_unkernel(arrays["adj"]) if "adj" in arrays else None,
    )


def _unkernel(kernel: F4) -> F4:
    """d/width from exp(-(d/width)²), inf where the kernel was cut to 0."""
    with np.errstate(divide="ignore"):
        return np.sqrt(-np.log(np.clip(kernel, 0, 1))).astype(np.float32)


def _cycle_counts(arrays: Arrays, _: Card | None) -> SeriesPack:
    """Münster's counters: one start time, then a row per quarter of an hour. Local time is taken as it stands."""
    start = np.datetime64(str(arrays["start"]), "s").astype(np.int64)
    counts = arrays["count"]
    return SeriesPack(
        values=counts,
        time_s=start + _QUARTER_HOUR_S * np.arange(len(counts)),
        interval_s=_QUARTER_HOUR_S,
        sensors=_names(arrays["station_id"]),
        unit="cyclists per 15 min",
    )


def _names(array: Any) -> tuple[str, ...]:  # noqa: ANN401 - any array of text
    if array.ndim != 1 or array.dtype.kind != "U":
        raise DataError(f"names must be a row of text, not {array.dtype}{list(array.shape)}")
    return tuple(array.tolist())


_LAYOUTS: tuple[tuple[set[str], Callable[[Arrays, Card | None], Pack]], ...] = (
    ({"values", "time_s", "interval_s", "sensors", "unit"}, _series),
    ({"images"}, _images),
    ({"jpeg_blob", "offsets"}, _images),
    ({"speed", "time", "sensor_id"}, _los_loop),
    ({"count", "start", "station_id"}, _cycle_counts),
)
