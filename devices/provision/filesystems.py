"""Says what a partition holds, by its content and never by its name: ext2 to ext4, FAT, and others by name. Pure.

Sources: the kernel's ``Documentation/filesystems/ext4`` (super block), Microsoft's FAT specification 1.03, libblkid's
magic numbers for the rest.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from devices.provision.partitions import Read

_EXT_AT: Final = 1024
_RECOVER, _JOURNAL_DEVICE, _EXTENTS, _64BIT = 0x4, 0x8, 0x40, 0x80
_HAS_JOURNAL: Final = 0x4
_MAGIC: Final = {
    "squashfs": (0, b"hsqs"),
    "xfs": (0, b"XFSB"),
    "f2fs": (1024, b"\x10\x20\xf5\xf2"),
    "btrfs": (0x10040, b"_BHRfS_M"),
    "LUKS": (0, b"LUKS\xba\xbe"),
    "LVM": (536, b"LVM2 001"),
    "swap": (4086, b"SWAPSPACE2"),
    "Android boot": (0, b"ANDROID!"),
    "gzip": (0, b"\x1f\x8b\x08"),
    "xz": (0, b"\xfd7zXZ\0"),
    "zstd": (0, b"\x28\xb5\x2f\xfd"),
    "bzip2": (0, b"BZh"),
    "zip": (0, b"PK\x03\x04"),
    "Android sparse image": (0, b"\x3a\xff\x26\xed"),
    "QEMU image": (0, b"QFI\xfb"),
}
PACKED: Final = frozenset({"gzip", "xz", "zstd", "bzip2", "zip", "Android sparse image", "QEMU image"})
"""What a file is that must be unpacked before it is an image."""


class Filesystem(msgspec.Struct, frozen=True):
    """What lies in a partition.

    Attributes:
        kind: ``ext2``, ``ext3``, ``ext4``, ``FAT``, another name, or ``unknown``.
        label: its volume name.
        size: bytes that it takes; 0 where that is not read.
        block: bytes of a block.
        free: bytes that root may still write; an estimate, for folders and maps take some.
        free_inodes: files that may still be made.
        in_use: its journal holds what must be replayed, or lies elsewhere: nobody may write into it as it is.
    """

    kind: str
    label: str = ""
    size: int = 0
    block: int = 0
    free: int = 0
    free_inodes: int = 0
    in_use: bool = False

    @property
    def is_ext(self) -> bool:
        """Whether e2fsprogs can write into it."""
        return self.kind in {"ext2", "ext3", "ext4"}


def identify(read: Read, start: int) -> Filesystem:
    """Say what lies at an offset of an image."""
    ext = _ext(read(start + _EXT_AT, 1024))
    if ext is not None:
        return ext
    first = read(start, 512)
    for at, label in ((54, 43), (82, 71)):
        if first[510:512] == b"\x55\xaa" and first[at : at + 3] == b"FAT":
            return Filesystem("FAT", first[label : label + 11].decode("ascii", "replace").strip())
    for kind, (at, magic) in _MAGIC.items():
        if read(start + at, len(magic)) == magic:
            return Filesystem(kind)
    return Filesystem("unknown")


def _ext(block: bytes) -> Filesystem | None:
    if len(block) < 1024 or block[0x38:0x3A] != b"\x53\xef":  # noqa: PLR2004  # a whole super block
        return None
    inodes, blocks, _, free, free_inodes, _, log_size = struct.unpack_from("<7I", block)
    compat, incompat = struct.unpack_from("<II", block, 0x5C)
    if log_size > 6 or not inodes or not blocks:  # noqa: PLR2004  # blocks of 64 KiB
        return None
    if incompat & _64BIT:
        blocks |= struct.unpack_from("<I", block, 0x150)[0] << 32
        free |= struct.unpack_from("<I", block, 0x158)[0] << 32
    size = 1024 << log_size
    return Filesystem(
        kind="ext4" if incompat & _EXTENTS else "ext3" if compat & _HAS_JOURNAL else "ext2",
        label=block[0x78:0x88].partition(b"\0")[0].decode("utf-8", "replace"),
        size=blocks * size,
        block=size,
        free=free * size,
        free_inodes=free_inodes,
        in_use=bool(incompat & (_RECOVER | _JOURNAL_DEVICE)),
    )
