"""From a pack to a file and its card; a power cut leaves the old file, the new one, or the new one without a card."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec
import numpy as np

from devices.packs.card import Card, card_path, file_hash
from devices.packs.npz import Arrays
from devices.packs.pack import ImagePack, Pack
from edge_protocol.errors import StoreError


def save_pack(path: str | Path, pack: Pack, *, title: str, source: str = "", licence: str = "") -> None:
    """Write a pack and its card.

    Args:
        path: ends in ``.npz``; the card lies beside it and ends in ``.json``.
        pack: what to write.
        title: one line for people.
        source: where the data came from.
        licence: under which terms.

    Raises:
        StoreError: the disk refuses.
    """
    place = Path(path)
    if place.suffix != ".npz":
        raise StoreError(f"{place}: a pack's name ends in .npz")
    arrays = _arrays(pack)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        card_path(place).unlink(missing_ok=True)
        _write(place, arrays)
        card = Card(
            file=place.name,
            title=title,
            source=source,
            licence=licence,
            sha256=file_hash(place),
            bytes=place.stat().st_size,
            classes=pack.classes if isinstance(pack, ImagePack) else (),
            arrays={name: {"shape": list(array.shape), "dtype": str(array.dtype)} for name, array in arrays.items()},
        )
        card_path(place).write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=1) + b"\n")
    except OSError as error:
        raise StoreError(
            f"{place}: cannot be written: {error.strerror or error}; check space and permissions"
        ) from error


def _write(place: Path, arrays: Arrays) -> None:
    descriptor, name = tempfile.mkstemp(dir=place.parent, prefix=f".{place.stem}-", suffix=".npz")
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # the stub takes arrays for flags
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(place)
    finally:
        Path(name).unlink(missing_ok=True)


def _arrays(pack: Pack) -> Arrays:
    if isinstance(pack, ImagePack):
        return {
            "images": pack.images,
            "labels": pack.labels,
            "classes": np.array(pack.classes, np.str_),
            "side": pack.side,
            "side_names": np.array(pack.side_names, np.str_),
            "group": pack.groups,
            "split": pack.split,
        }
    arrays: Arrays = {
        "values": pack.values,
        "time_s": pack.time_s,
        "interval_s": np.float64(pack.interval_s),
        "sensors": np.array(pack.sensors, np.str_),
        "unit": np.array(pack.unit, np.str_),
    }
    return arrays if pack.distance is None else arrays | {"distance": pack.distance}
