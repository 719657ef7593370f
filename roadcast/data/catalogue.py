"""What packs there are and what is in them, for people and for JSON; the facts come from cards and packs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from devices.packs import UNLABELLED, Card, ImagePack, Pack, check_hash, open_pack, read_card
from edge_protocol.errors import DataError

_SUFFIXES = (".npz", ".mp4")


class Listed(msgspec.Struct, frozen=True):
    """One data file of a folder.

    Attributes:
        file: its name.
        bytes: its size.
        title, source, licence: from its card, empty without one.
        problem: why the card cannot be read or does not fit, empty when all is well.
    """

    file: str
    bytes: int
    title: str = ""
    source: str = ""
    licence: str = ""
    problem: str = ""


class Checked(msgspec.Struct, frozen=True):
    """What a pack holds.

    Attributes:
        file: its path.
        kind: ``images`` or ``series``.
        shape: of the images or values.
        facts: what a person wants to know: classes and their counts, sensors, interval, missing share.
        hash: ``checked`` against the card, or ``no card``.
    """

    file: str
    kind: str
    shape: tuple[int, ...]
    facts: dict[str, str | int | float]
    hash: str


def list_packs(folder: Path) -> list[Listed]:
    """The data files of a folder by name; hashes are not computed here (`check_pack` does)."""
    files = sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES and not file.name.startswith("."))
    return [_listed(file) for file in files]


def _listed(file: Path) -> Listed:
    size = file.stat().st_size
    try:
        card = read_card(file) or Card(file=file.name)
    except DataError as error:
        return Listed(file.name, size, problem=str(error))
    problem = f"{size} bytes, its card says {card.bytes}" if card.bytes and card.bytes != size else ""
    return Listed(file.name, size, card.title, card.source, card.licence, problem)


def check_pack(path: Path) -> Checked:
    """Open a pack and hold it against its card.

    Raises:
        DataError: what is wrong with it, and what to do.
    """
    pack, card = open_pack(path), read_card(path)
    if card is not None:
        check_hash(path, card)
    kind, shape = ("images", pack.images.shape) if isinstance(pack, ImagePack) else ("series", pack.values.shape)
    verdict = "checked" if card is not None and card.sha256 else "no card"
    return Checked(str(path), kind, shape, pack_facts(pack), verdict)


def pack_facts(pack: Pack) -> dict[str, str | int | float]:
    """What a person wants to know about a pack."""
    if isinstance(pack, ImagePack):
        counts = {name: int(np.sum(pack.labels == i)) for i, name in enumerate(pack.classes)}
        unlabelled = int(np.sum(pack.labels == UNLABELLED))
        side = {"side": ", ".join(pack.side_names)} if pack.side_names else {}
        more = {"unlabelled": unlabelled} if unlabelled else {}
        return {**counts, **more, "test": int(np.sum(pack.split == 1)), **side}
    return {
        "sensors": len(pack.sensors),
        "unit": pack.unit,
        "interval_s": pack.interval_s,
        "days": round(len(pack) * pack.interval_s / 86_400, 2),
        "missing": round(float(np.isnan(pack.values).mean()) if pack.values.size else 0.0, 4),
    }
