"""Reads the partition table of a disk image: MBR with logical partitions, and GPT. Pure; bounded, and strict.

A table that is damaged, overlaps or reaches beyond the image is refused rather than guessed at, for somebody will write
into what it names. Sources: UEFI specification 2.10, part 5 (GPT, protective MBR); extended boot records are walked as
Linux does (block/partitions/msdos.c).
"""

from __future__ import annotations

import struct
from binascii import crc32
from collections.abc import Callable, Sequence
from typing import Final, Literal
from uuid import UUID

import msgspec

from edge_protocol.errors import DataError

Read = Callable[[int, int], bytes]
"""Reads so many bytes at an offset of the image; fewer at its end."""

_SECTOR: Final = 512
_GPT_SECTORS: Final = (512, 4096)
_MOST: Final = 1024
"""Entries of a GPT that are read; 128 are usual. Jetson images have fewer than 20."""
_MOST_LOGICAL: Final = 64
_EXTENDED: Final = frozenset({0x05, 0x0F, 0x85})
_PROTECTIVE: Final = 0xEE


class Partition(msgspec.Struct, frozen=True):
    """A partition.

    Attributes:
        number: as Linux numbers it; 0 for an image that is one filesystem.
        start: first byte of the image.
        size: bytes.
        kind: of MBR its type as two hexadecimal digits, of GPT the type's GUID.
        name: of GPT; empty otherwise.
    """

    number: int
    start: int
    size: int
    kind: str
    name: str = ""


class Table(msgspec.Struct, frozen=True):
    """A partition table; ``none`` for an image without one, which then is one partition with the number 0."""

    scheme: Literal["mbr", "gpt", "none"]
    partitions: tuple[Partition, ...]


def read_table(read: Read, size: int) -> Table:
    """Read the table of an image.

    Args:
        read: gives its bytes.
        size: of the image, in bytes.

    Raises:
        DataError: the table is damaged, its partitions overlap, or reach beyond the image.
    """
    sector = read(0, _SECTOR)
    if sector[510:512] != b"\x55\xaa" or not _is_mbr(sector):
        return Table("none", (Partition(0, 0, size, ""),))
    if any(kind == _PROTECTIVE for kind, _, _ in _slots(sector)):
        table = Table("gpt", _gpt(read))
    else:
        table = Table("mbr", _mbr(read, sector))
    _check(table.partitions, size)
    return table


def _is_mbr(sector: bytes) -> bool:
    """Whether a first sector holds a table; the boot sector of a FAT filesystem ends with the same two bytes."""
    states = {sector[446 + 16 * slot] for slot in range(4)}
    fat = sector[54:59] in {b"FAT12", b"FAT16"} or sector[82:87] == b"FAT32"
    return states <= {0x00, 0x80} and not fat and any(kind for kind, _, _ in _slots(sector))


def _slots(sector: bytes) -> list[tuple[int, int, int]]:
    """Type, first sector and number of sectors of the four slots."""
    return [(sector[at + 4], *struct.unpack_from("<II", sector, at + 8)) for at in range(446, 510, 16)]


def _mbr(read: Read, sector: bytes) -> tuple[Partition, ...]:
    found: list[Partition] = []
    logical: list[Partition] = []
    for number, (kind, first, count) in enumerate(_slots(sector), 1):
        if kind in _EXTENDED:
            logical += _chain(read, first, 5 + len(logical))
        elif kind and count:
            found.append(_of_sectors(number, first, count, kind))
    return (*found, *logical)


def _chain(read: Read, base: int, number: int) -> list[Partition]:
    """Walk the extended boot records: each says where its logical partition and the next record are."""
    found: list[Partition] = []
    at, seen = base, set[int]()
    while len(seen) < _MOST_LOGICAL:
        record = read(at * _SECTOR, _SECTOR)
        if record[510:512] != b"\x55\xaa" or at in seen:
            raise DataError(f"the partition table is damaged: no extended boot record at sector {at}")
        seen.add(at)
        (kind, first, count), (link, offset, _), *_ = _slots(record)
        if kind and count and kind not in _EXTENDED:
            found.append(_of_sectors(number + len(found), at + first, count, kind))
        if link not in _EXTENDED or not offset:
            return found
        at = base + offset
    raise DataError(f"the partition table has more than {_MOST_LOGICAL} logical partitions")


def _of_sectors(number: int, first: int, count: int, kind: int) -> Partition:
    return Partition(number, first * _SECTOR, count * _SECTOR, f"{kind:02x}")


def _gpt(read: Read) -> tuple[Partition, ...]:
    for sector in _GPT_SECTORS:
        header = read(sector, 92)
        if header[:8] == b"EFI PART" and len(header) == 92:  # noqa: PLR2004  # the header's size in the standard
            return _gpt_entries(read, sector, header)
    raise DataError("the GPT is damaged: no header after the protective MBR; write the image anew from its source")


def _gpt_entries(read: Read, sector: int, header: bytes) -> tuple[Partition, ...]:
    head_size, head_crc = struct.unpack_from("<II", header, 12)
    (at,) = struct.unpack_from("<Q", header, 72)
    count, size, crc = struct.unpack_from("<III", header, 80)
    if not 92 <= head_size <= sector or not 0 < count <= _MOST or size not in {128, 256, 512}:  # noqa: PLR2004
        raise DataError(f"the GPT is damaged: {count} entries of {size} bytes, header of {head_size}")
    whole = read(sector, head_size)
    if crc32(whole[:16] + bytes(4) + whole[20:]) != head_crc:
        raise DataError("the GPT is damaged: its header's checksum is wrong; write the image anew from its source")
    entries = read(at * sector, count * size) if at < 1 << 40 else b""
    if len(entries) != count * size or crc32(entries) != crc:
        raise DataError("the GPT is damaged: its entries' checksum is wrong; write the image anew from its source")
    found = []
    for number in range(1, count + 1):
        entry = entries[(number - 1) * size : number * size]
        if any(entry[:16]):
            first, last = struct.unpack_from("<QQ", entry, 32)
            name = entry[56:128].decode("utf-16-le", "replace").partition("\0")[0]
            kind = str(UUID(bytes_le=entry[:16]))
            found.append(Partition(number, first * sector, (last - first + 1) * sector, kind, name))
    return tuple(found)


def _check(partitions: Sequence[Partition], size: int) -> None:
    end, before = 0, 0
    for one in sorted(partitions, key=lambda partition: partition.start):
        if one.start < _SECTOR or one.size <= 0:
            raise DataError(
                f"the partition table is damaged: partition {one.number} has {one.size} bytes at {one.start}"
            )
        if one.start < end:
            raise DataError(f"the partition table is damaged: partitions {before} and {one.number} overlap")
        end, before = one.start + one.size, one.number
        if end > size:
            says = f"the image is cut off: partition {one.number} ends at byte {end}, the image at {size}"
            raise DataError(f"{says}; fetch or unpack it again")
