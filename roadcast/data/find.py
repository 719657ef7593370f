"""Where data is looked for: what the user names, else the usual places, else nowhere, and then it is simulated."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from edge_protocol.errors import DataError

VARIABLE = "ROADCAST_DATA"
USUAL = (Path("data"), Path("../shared/data"))
SIMULATED = "built-in simulated roadside"


@dataclass(frozen=True)
class DataLocation:
    """Where the data comes from.

    Attributes:
        path: the folder of packs, or None: simulate.
        origin: for people: which rule of the search order found it.
    """

    path: Path | None
    origin: str


def find_data_dir(explicit: Path | None = None) -> DataLocation:
    """The first of: `explicit`, ``$ROADCAST_DATA``, ``data/``, ``../shared/data`` that holds packs; else nowhere.

    Raises:
        DataError: a folder that was named is not there or holds no pack; a named folder is never passed over.
    """
    named = os.environ.get(VARIABLE)
    for place, origin in ((explicit, "--data"), (Path(named) if named else None, f"${VARIABLE}")):
        if place is not None:
            if not place.is_dir():
                raise DataError(f"{place} (from {origin}): no such folder; name another, or leave it out to simulate")
            if not has_packs(place):
                raise DataError(f"{place} (from {origin}): no pack (*.npz) in it; `roadcast data import` makes packs")
            return DataLocation(place, origin)
    for place in USUAL:
        if has_packs(place):
            return DataLocation(place, f"{place}/")
    return DataLocation(None, SIMULATED)


def has_packs(folder: Path) -> bool:
    """Whether there is a data pack in a folder."""
    return any(folder.glob("*.npz")) if folder.is_dir() else False
