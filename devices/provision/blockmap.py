"""Reads a block map: which parts of an image hold data, and their hashes. Pure and strict.

The format is bmaptool's, version 2.0 (and 1.4, which differs in nothing that is read here). Older ones have no SHA-256
and are refused.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final
from xml.parsers import expat

import msgspec

from edge_protocol.errors import DataError

MOST: Final = 1 << 25
"""Bytes of a block map that is read: that of a fragmented 1 TB image has less."""
_RANGE: Final = re.compile(r"\s*(\d{1,15})(?:\s*-\s*(\d{1,15}))?\s*")
_HASH: Final = re.compile(r"[0-9a-f]{64}")


class Span(msgspec.Struct, frozen=True):
    """Bytes of an image that are written.

    Attributes:
        start: the first one.
        size: how many.
        sha256: their hash in hexadecimal; None where it is not known.
    """

    start: int
    size: int
    sha256: str | None = None


def read_block_map(text: bytes, image_size: int) -> tuple[Span, ...]:
    """Read a block map.

    Args:
        text: the XML.
        image_size: of the image that it is said to be of, in bytes.

    Returns:
        The spans to be written, in their order, none overlapping.

    Raises:
        DataError: it is damaged, of another version, or of another image.
    """
    if len(text) > MOST:
        raise DataError(f"the block map has {len(text)} bytes, more than {MOST}")
    fields, ranges = _parse(text)
    version = fields.get("version", "")
    if not version.startswith(("2.", "1.4")) or fields.get("ChecksumType") != "sha256":
        raise DataError(f"the block map is of version {version!r} without SHA-256; make it anew: bmaptool create")
    claimed = fields.get("BmapFileChecksum", "")
    if not _HASH.fullmatch(claimed) or sha256(text.replace(claimed.encode(), b"0" * 64, 1)).hexdigest() != claimed:
        raise DataError("the block map is damaged: its own checksum is wrong")
    size, block, count = (_number(fields, name) for name in ("ImageSize", "BlockSize", "BlocksCount"))
    if size != image_size:
        raise DataError(f"the block map is of an image of {size} bytes, and this one has {image_size}")
    if not block or count != -(-size // block):
        raise DataError(f"the block map is damaged: {count} blocks of {block} bytes for {size}")
    spans: list[Span] = []
    for said, checksum in ranges:
        match = _RANGE.fullmatch(said)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        after = spans[-1].start + spans[-1].size if spans else 0
        if not first <= last < count or first * block < after or not _HASH.fullmatch(checksum):
            raise DataError(f"the block map is damaged: range {said.strip()!r} with hash {checksum!r}")
        spans.append(Span(first * block, min((last + 1) * block, size) - first * block, checksum))
    if not spans:
        raise DataError("the block map names no block at all")
    return tuple(spans)


def _number(fields: dict[str, str], name: str) -> int:
    text = fields.get(name, "")
    if not re.fullmatch(r"\d{1,15}", text):
        raise DataError(f"the block map is damaged: {name} is {text!r}")
    return int(text)


def _parse(text: bytes) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """The text of each element by name, and of each range with its hash; a document type (and entities) is refused."""
    fields: dict[str, str] = {}
    ranges: list[tuple[str, str]] = []
    said: list[str] = []
    hashes: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        said.clear()
        if name == "bmap":
            fields["version"] = attributes.get("version", "")
        elif name == "Range":
            hashes.append(attributes.get("chksum", ""))

    def end(name: str) -> None:
        if name == "Range":
            ranges.append(("".join(said), hashes[-1]))
        else:
            fields.setdefault(name, "".join(said).strip())
        said.clear()

    def refuse(*_: object) -> None:
        raise DataError("the block map has a document type; bmaptool writes none")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = said.append, refuse
    try:
        parser.Parse(text, True)  # noqa: FBT003  # that this is all
    except expat.ExpatError as error:
        raise DataError(f"the block map is no XML: {error}") from error
    return fields, ranges
