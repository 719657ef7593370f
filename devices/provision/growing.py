"""Makes the last partition of an image larger: what must be written into its partition table. Pure.

Sources: UEFI specification 2.10, part 5 (GPT: both headers, both copies of the entries, the protective MBR).
"""

from __future__ import annotations

import struct
from binascii import crc32
from typing import Final

import msgspec

from devices.provision.partitions import Partition, Read, read_table
from edge_protocol.errors import StoreError

_SECTOR: Final = 512
_MIB: Final = 1 << 20
_MOST_SECTORS: Final = 0xFFFFFFFF


class Growth(msgspec.Struct, frozen=True):
    """What makes an image larger.

    Attributes:
        size: of the image then, in bytes; it is made that long first.
        partition: as it is then.
        patches: bytes by where they go.
    """

    size: int
    partition: Partition
    patches: dict[int, bytes]


def grow(read: Read, size: int, part: Partition, extra: int) -> Growth:
    """Say what makes a partition larger.

    Args:
        read: gives the image's bytes.
        size: of the image, in bytes.
        part: of its table, which `read_table` has found whole.
        extra: bytes more, rounded up to whole MiB.

    Raises:
        StoreError: another partition follows, or the table cannot say such a size.
    """
    table = read_table(read, size)
    grown = msgspec.structs.replace(part, size=part.size + -(-extra // _MIB) * _MIB)
    end = grown.start + grown.size
    after = [other.number for other in table.partitions if other.start > part.start]
    if after:
        raise StoreError(f"partition {part.number} is full, and partition {after[0]} follows it; make room there first")
    if table.scheme == "none":
        return Growth(end, grown, {})
    if table.scheme == "mbr":
        return Growth(max(size, end), grown, _mbr(grown))
    sector = next(one for one in (512, 4096) if read(one, 8) == b"EFI PART")
    return _gpt(read, size, grown, sector)


def _mbr(part: Partition) -> dict[int, bytes]:
    count = part.size // _SECTOR
    if part.number > 4 or part.start // _SECTOR + count > _MOST_SECTORS:  # noqa: PLR2004  # slots of an MBR
        raise StoreError(f"partition {part.number} is full, and an MBR cannot make it larger; use parted")
    return {446 + 16 * (part.number - 1) + 12: struct.pack("<I", count)}


def _gpt(read: Read, size: int, part: Partition, sector: int) -> Growth:
    (header_size,) = struct.unpack("<I", read(sector + 12, 4))
    header = bytearray(read(sector, header_size))
    (at,) = struct.unpack_from("<Q", header, 72)
    count, entry_size = struct.unpack_from("<II", header, 80)
    entries = bytearray(read(at * sector, count * entry_size))
    struct.pack_into("<Q", entries, (part.number - 1) * entry_size + 40, (part.start + part.size) // sector - 1)
    room = -(-len(entries) // sector)
    total = max(size // sector, (part.start + part.size) // sector + room + 1)
    last = total - 1
    struct.pack_into("<Q", header, 48, last - room - 1)
    struct.pack_into("<I", header, 88, crc32(entries))
    return Growth(
        total * sector,
        part,
        {
            446 + 12: struct.pack("<I", min(last, _MOST_SECTORS)),
            sector: _header(header, 1, last, at),
            at * sector: bytes(entries),
            (last - room) * sector: bytes(entries),
            last * sector: _header(header, last, 1, last - room),
        },
    )


def _header(header: bytearray, own: int, other: int, entries: int) -> bytes:
    made = bytearray(header)
    struct.pack_into("<QQ", made, 24, own, other)
    struct.pack_into("<Q", made, 72, entries)
    struct.pack_into("<I", made, 16, 0)
    struct.pack_into("<I", made, 16, crc32(made))
    return bytes(made)
