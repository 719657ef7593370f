"""The JSON card beside a pack: where the data came from, under which licence, and the hash of the file."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import msgspec

from edge_protocol.errors import DataError

MAX_CARD_BYTES = 1 << 20
_CHUNK = 1 << 20


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a data file; keys that are not listed here are for people.

    Attributes:
        file: name of the data file.
        title: one line for people.
        source: where it came from.
        licence: under which terms, with the attribution that they ask for.
        sha256: 64 hex digits of the data file, or empty when unknown.
        bytes: size of the data file, or 0 when unknown.
        classes: label names, where the data file itself does not hold them.
        arrays: shape and dtype per array.
    """

    file: str
    title: str = ""
    source: str = ""
    licence: str = ""
    sha256: str = ""
    bytes: int = 0
    classes: tuple[str, ...] = ()
    arrays: dict[str, dict[str, list[int] | str]] = {}


def card_path(path: Path) -> Path:
    """Where the card of a data file lies."""
    return path.with_suffix(".json")


def read_card(path: Path) -> Card | None:
    """The card of the data file at `path`, or None when it has none.

    Raises:
        DataError: there is one and it cannot be read.
    """
    place = card_path(path)
    try:
        with place.open("rb") as file:
            text = file.read(MAX_CARD_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{place}: cannot be read: {error.strerror or error}; check its permissions") from error
    if len(text) > MAX_CARD_BYTES:
        raise DataError(f"{place}: a card of more than {MAX_CARD_BYTES} bytes; is it the card of {path.name}?")
    try:
        return msgspec.json.decode(text, type=Card)
    except msgspec.DecodeError as error:
        raise DataError(f"{place}: not a data card: {error}; fetch it again, or delete it to do without") from error


def check_hash(path: Path, card: Card) -> None:
    """Hold a data file against its card.

    Raises:
        DataError: size or hash differ, or the file cannot be read.
    """
    try:
        size = path.stat().st_size
        if card.bytes and size != card.bytes:
            raise DataError(f"{path}: {size} bytes, but its card says {card.bytes}: {_REMEDY}")
        if card.sha256 and file_hash(path) != card.sha256:
            raise DataError(f"{path}: its sha256 is not the one on its card: {_REMEDY}")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}; check path and permissions") from error


_REMEDY = "truncated, damaged or changed; fetch or make it again (or delete the card if the change was meant)"


def file_hash(path: Path) -> str:
    """SHA-256 of a file in hex, in constant memory."""
    digest = sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
