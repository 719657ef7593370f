"""Writes the simulated roadside as ordinary packs and a clip, with cards that say that they are simulated."""

from __future__ import annotations

from pathlib import Path

import msgspec

from devices.packs import card_path, save_pack
from devices.packs.card import file_hash
from edge_protocol.errors import StoreError
from roadcast.simulated.road import busy_scene, write_clip
from roadcast.simulated.traffic import simulate_speeds
from roadcast.simulated.vehicles import render_vehicles

VEHICLE_PACK = "simulated_vehicles.npz"
SPEED_PACK = "simulated_speeds.npz"
CLIP = "simulated_road.mp4"
_SOURCE = "simulated by roadcast"
_LICENCE = "none needed: made by this program"
_FRAMES = 400


def simulate_roadside(
    folder: Path, *, seed: int = 0, per_class: int = 300, days: int = 7, roads: int = 4, detectors: int = 7
) -> list[Path]:
    """Write vehicle crops, a week of speeds and a road clip; the files written, without their cards.

    Args:
        folder: made where it is missing.
        seed: the same seed gives the same roadside.
        per_class: vehicle crops of each of the six classes.
        days: of traffic.
        roads: carriageways.
        detectors: on each road.

    Raises:
        StoreError: the disk refuses.
    """
    vehicles, speeds, clip = folder / VEHICLE_PACK, folder / SPEED_PACK, folder / CLIP
    save_pack(
        vehicles,
        render_vehicles(per_class, seed=seed),
        title=f"simulated: rendered vehicles of six classes (seed {seed})",
        source=_SOURCE,
        licence=_LICENCE,
    )
    save_pack(
        speeds,
        simulate_speeds(seed=seed, days=days, roads=roads, detectors=detectors),
        title=f"simulated: detector speeds of a cell-transmission model, mph, 5 min (seed {seed})",
        source=_SOURCE,
        licence=_LICENCE,
    )
    scene = busy_scene(seed=seed)
    write_clip(clip, scene, _FRAMES)
    card = {
        "file": clip.name,
        "title": f"simulated: rendered road from above, {len(scene.passings)} vehicles (seed {seed})",
        "source": _SOURCE,
        "licence": _LICENCE,
        "sha256": file_hash(clip),
        "bytes": clip.stat().st_size,
        "frames": _FRAMES,
        "truth": scene.truth(),
    }
    try:
        card_path(clip).write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=1) + b"\n")
    except OSError as error:
        raise StoreError(f"{card_path(clip)}: cannot be written: {error.strerror or error}") from error
    return [vehicles, speeds, clip]
