"""What a disk of this machine is, and whether it may be written over: never a mounted one, nor one that is in use.

Everything is read below a root, so that tests bring their own ``proc`` and ``sys``. The kernel is asked again when the
disk is opened: it refuses an exclusive opening of a disk that is in use.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Final

import msgspec

from edge_protocol.errors import ConfigError, NotReadyError, StoreError

_SECTOR: Final = 512
_SYSTEM: Final = re.compile(r"/|/(boot|usr|var|home|etc)(/.*)?")
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


class Disk(msgspec.Struct, frozen=True):
    """A disk, or a file that stands for one.

    Attributes:
        path: as it was named.
        size: bytes.
        model: what it says that it is; empty for a file.
        removable: as the kernel says; a card reader's is, a built-in one's often not.
    """

    path: Path
    size: int
    model: str = ""
    removable: bool = False


def disk_of(path: Path, root: Path = Path("/")) -> Disk:
    """Look at a disk, and refuse one that must not be written over.

    Args:
        path: of its device, such as ``/dev/sdb`` or a link below ``/dev/disk/by-id``; or a file.
        root: the folder that holds ``proc`` and ``sys``.

    Raises:
        ConfigError: there is no such disk, or it is a partition.
        NotReadyError: it is mounted, in use, a file that is in use as a disk, or this machine's own.
        StoreError: it cannot be written to, or holds no medium.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ConfigError(f"--disk: {path}: {error.strerror}; lsblk lists the disks") from error
    name = path.resolve().name
    folder = root / "sys/class/block" / name
    if not stat.S_ISBLK(status.st_mode) and path.resolve().parent != root.resolve() / "dev":
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"--disk: {path} is neither a disk nor a file; lsblk lists the disks")
        _refuse_looped(path, root)
        return Disk(path, status.st_size)
    if not folder.is_dir():
        raise ConfigError(f"--disk: {path} is no disk; lsblk lists the disks")
    if (folder / "partition").exists():
        raise ConfigError(f"--disk: {path} is a partition; name the whole disk")
    _refuse_used(path, name, root)
    if _text(folder / "ro") == "1":
        raise StoreError(f"{path} cannot be written to: the switch of the card, or of its adapter, is on LOCK")
    size = int(_text(folder / "size") or 0) * _SECTOR
    if not size:
        raise StoreError(f"{path} holds no medium")
    model = " ".join(filter(None, (_text(folder / "device/vendor"), _text(folder / "device/model"))))
    return Disk(path, size, model or _text(folder / "device/name"), _text(folder / "removable") == "1")


def _refuse_looped(path: Path, root: Path) -> None:
    """Refuse a file that the kernel has as a disk: whoever has mounted that would see it change under him."""
    for backing in sorted((root / "sys/class/block").glob("loop*/loop/backing_file")):
        if _text(backing) == str(path.resolve()):
            device = f"/dev/{backing.parent.parent.name}"
            raise NotReadyError(f"{path} is in use as {device}; unmount what is on it, then run: losetup -d {device}")


def _refuse_used(path: Path, name: str, root: Path) -> None:
    """Refuse a disk when it, a partition of it, or whatever is built on them is mounted or swapped to."""
    names = _built_on(name, root)
    numbers = {_text(root / "sys/class/block" / one / "dev") for one in names}
    for line in (root / "proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        fields, _, source = line.partition(" - ")
        _, _, number, _, where, *_ = fields.split()
        if number in numbers or _device(source.split()[1], root) in names:
            place = _OCTAL.sub(lambda match: chr(int(match[1], 8)), where)
            if _SYSTEM.fullmatch(place):
                raise NotReadyError(f"{path} holds {place} of this very machine; nothing is written to it")
            raise NotReadyError(f"{path} is mounted at {place}; run: umount '{place}'")
    swaps = root / "proc/swaps"
    for line in swaps.read_text(encoding="utf-8").splitlines()[1:] if swaps.exists() else ():
        if _device(line.split()[0], root) in names:
            raise NotReadyError(f"{path} is swapped to by this machine; run: swapoff {line.split()[0]}")
    for one in names:
        holders = sorted(holder.name for holder in (root / "sys/class/block" / one / "holders").glob("*"))
        if holders:
            raise NotReadyError(f"{path} is in use by {', '.join(holders)} (LVM, RAID or encryption); take that down")


def _built_on(name: str, root: Path) -> set[str]:
    """The disk, its partitions, and what holds any of them, to the end."""
    blocks, found, more = root / "sys/class/block", set[str](), [name]
    while more:
        one = more.pop()
        if one not in found:
            found.add(one)
            more += [part.parent.name for part in (blocks / one).glob(f"{one}*/partition")]
            more += [holder.name for holder in (blocks / one / "holders").glob("*")]
    return found


def _device(source: str, root: Path) -> str:
    """The kernel's name of a device that a table names, through links such as those of ``/dev/mapper``."""
    return (root / source.lstrip("/")).resolve().name if source.startswith("/") else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n\t")
    except OSError:
        return ""
