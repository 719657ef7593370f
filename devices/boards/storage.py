"""Disks: what kind, how worn, how full. SD cards are what dies first at the roadside. Owns no budget."""

from __future__ import annotations

import json
import re
from typing import Final, Literal, TypeAlias

import msgspec

from devices.boards.machine import Machine, whole

Kind: TypeAlias = Literal["sd", "emmc", "nvme", "usb", "ssd", "hdd", "virtual"]
_SECTOR: Final = 512
_ROOT: Final = re.compile(r"^\S+ / ")
_SKIP: Final = re.compile(r"(?:loop|ram|zram|sr|dm-|md|nbd)\d|mmcblk\d+(?:boot|rpmb)")
_MMC: Final[dict[str, Kind]] = {"SD": "sd", "MMC": "emmc"}
_LIFE_STEPS: Final = range(1, 12)
_FIELDS: Final = 7
_WRITTEN: Final = 6


class Disk(msgspec.Struct, frozen=True):
    """One disk.

    Attributes:
        name: such as ``mmcblk0``.
        kind: None when the kernel does not tell.
        bytes: its size.
        written: bytes written since the board was switched on.
        wear: share of its life that is used up, at most 1, rounded up to a tenth on eMMC; None when it does not say
            (an SD card never does).
    """

    name: str
    kind: Kind | None
    bytes: int | None
    written: int | None
    wear: float | None


class RootFilesystem(msgspec.Struct, frozen=True):
    """What ``/`` is.

    Attributes:
        device: such as ``/dev/mmcblk0p1``.
        filesystem: such as ``ext4``.
        read_only: how it is mounted; a worn card is remounted read-only by the kernel.
        bytes, free: size and what a user may still write; None when unknown.
    """

    device: str
    filesystem: str
    read_only: bool
    bytes: int | None = None
    free: int | None = None


def read_disks(machine: Machine) -> tuple[Disk, ...]:
    """Every real disk, with its wear where it tells."""
    return tuple(_disk(machine, name) for name in disk_names(machine))


def disk_names(machine: Machine) -> tuple[str, ...]:
    """Names of disks, without loop devices, RAM disks and boot partitions."""
    names = [path.split("/")[2] for path in machine.find("sys/block/*/size")]
    return tuple(name for name in names if not _SKIP.match(name))


def written_bytes(machine: Machine, name: str) -> int | None:
    """Bytes written to a disk since the board was switched on."""
    fields = (machine.text(f"sys/block/{name}/stat") or "").split()
    sectors = whole(fields[_WRITTEN]) if len(fields) >= _FIELDS else None
    return None if sectors is None or sectors < 0 else sectors * _SECTOR


def read_root(machine: Machine) -> RootFilesystem | None:
    """What ``/`` is; the last mount wins, as in the kernel."""
    mounts = [line.split() for line in machine.lines("proc/mounts", _ROOT).splitlines()]
    roots = [fields for fields in mounts if len(fields) >= 4 and fields[1] == "/"]  # noqa: PLR2004  # device … options
    if not roots:
        return None
    device, _, filesystem, options = roots[-1][:4]
    size, free = parse_df(machine.run("df", "-Pk", "/") or "")
    return RootFilesystem(device, filesystem, "ro" in options.split(","), size, free)


def parse_df(text: str) -> tuple[int | None, int | None]:
    """Size and free space in bytes from ``df -Pk``."""
    fields = text.strip().rpartition("\n")[2].split()
    if len(fields) < 6:  # noqa: PLR2004  # the columns that POSIX gives
        return None, None
    size, free = whole(fields[1]), whole(fields[3])
    return size if size is None else size << 10, free if free is None or free < 0 else free << 10


def _disk(machine: Machine, name: str) -> Disk:
    sectors = machine.whole(f"sys/block/{name}/size")
    kind = _kind(machine, name)
    size = None if sectors is None or sectors <= 0 else sectors * _SECTOR
    return Disk(name, kind, size, written_bytes(machine, name), _wear(machine, name, kind))


def _kind(machine: Machine, name: str) -> Kind | None:
    if name.startswith("mmcblk"):
        return _MMC.get(machine.text(f"sys/block/{name}/device/type") or "")
    if name.startswith("nvme"):
        return "nvme"
    if name.startswith(("vd", "xvd")):
        return "virtual"
    if machine.whole(f"sys/block/{name}/removable") == 1:
        return "usb"
    spins: dict[int | None, Kind] = {0: "ssd", 1: "hdd"}
    return spins.get(machine.whole(f"sys/block/{name}/queue/rotational"))


def _wear(machine: Machine, name: str, kind: Kind | None) -> float | None:
    if kind == "emmc":  # JEDEC JESD84-B51: 0x01 is up to a tenth, 0x0a all of it, 0x0b more than that; 0 is undefined
        steps = [_byte(part) for part in (machine.text(f"sys/block/{name}/device/life_time") or "").split()]
        known = [step for step in steps if step in _LIFE_STEPS]
        return min(max(known) / 10, 1.0) if known else None
    if kind == "nvme":
        said = _smart(machine.run("nvme", "smart-log", "-o", "json", f"/dev/{name}") or "")
        return None if said is None else min(said / 100, 1.0)
    return None


def _byte(text: str) -> int:
    return int(text, 16) if re.fullmatch(r"0x[0-9a-fA-F]{2}", text) else -1


def _smart(text: str) -> int | None:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return None
    used = said.get("percent_used", said.get("percentage_used")) if isinstance(said, dict) else None
    return used if type(used) is int and used >= 0 else None
