"""Data packs: one `.npz` file of images or series, with a JSON card beside it that says what it is and whose."""

from __future__ import annotations

from devices.packs.card import Card, card_path, check_hash, read_card
from devices.packs.pack import UNLABELLED, ImagePack, Pack, SeriesPack
from devices.packs.reader import open_pack
from devices.packs.writer import save_pack

__all__ = [
    "UNLABELLED",
    "Card",
    "ImagePack",
    "Pack",
    "SeriesPack",
    "card_path",
    "check_hash",
    "open_pack",
    "read_card",
    "save_pack",
]
