"""Carries a plan out in the root filesystem of a disk image. Owns the choice of partition, and the image's wholeness.

The image is never changed in place: a copy beside it is written, read back, checked, synced, and renamed over it (or to
where it was asked for). A run that is cut off leaves the image as it was. Which partition is meant is decided by what
they hold, and where two could be meant, nobody guesses.
"""

from __future__ import annotations

import os
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory

from devices.findings import Finding
from devices.provision import ext4, mounted
from devices.provision.changes import Change, check_paths, parents
from devices.provision.copies import changed_copy, copy_bytes, reader, refuse_packed
from devices.provision.ext4 import Debugfs, Tree
from devices.provision.filesystems import Filesystem, identify
from devices.provision.growing import grow
from devices.provision.mounted import Mounted
from devices.provision.partitions import Partition, read_table
from devices.provision.plan import Plan
from devices.provision.programs import Programs
from edge_protocol.errors import ConfigError, DataError, NotReadyError, StoreError

_SPARE = 1 << 20
"""Bytes that a filesystem must have left over: folders and maps take some."""
_OVERHEAD = 1.1
"""What a filesystem that grows needs for each byte that it gains: tables of inodes."""


def carry_out(
    plan: Plan,
    image: Path,
    *,
    out: Path | None = None,
    partition: int | None = None,
    dry_run: bool = False,
    programs: Programs | None = None,
) -> tuple[Change, ...]:
    """Write what a plan wants into an image.

    Args:
        plan: what must lie there.
        image: a disk image, or an image of one filesystem.
        out: where the changed image is put; None for in its place.
        partition: the number of the one that is meant; None to find it.
        dry_run: only say what would change.
        programs: starts e2fsprogs or mount.

    Raises:
        ConfigError: the partition cannot be told, or there is no such one.
        DataError: this is no image, or its partition table is damaged.
        NotReadyError: this machine lacks e2fsprogs.
        StoreError: the filesystem is in use, damaged or too small, or something is in the way.
    """
    check_paths(plan)
    programs = programs or Programs()
    chosen, filesystem = choose(image, partition, programs)
    _refuse_unfit(image, chosen, filesystem)
    tree = _tree(programs, image, chosen)
    if not tree.is_root():
        raise ConfigError(f"{image}: partition {chosen.number} holds no root filesystem, for it has no etc and usr")
    changes = tree.look(plan)
    right = all(change.action == "keep" for change in changes)
    if dry_run or (right and out is None):
        return changes
    with changed_copy(image, out or image) as work:
        if not right:
            if _needed(plan, changes, filesystem) > filesystem.free:
                _grow(programs, work, chosen, filesystem, _needed(plan, changes, filesystem))
            _tree(programs, work, chosen).write(plan)
    return changes


def check(
    image: Path, machine: str, python: str, *, partition: int | None = None, programs: Programs | None = None
) -> tuple[Finding, ...]:
    """Say what keeps the agent from running in an image; see `choose` for errors, `check_system` for the rest."""
    programs = programs or Programs()
    return _tree(programs, image, choose(image, partition, programs)[0]).check(machine, python)


def choose(image: Path, number: int | None, programs: Programs) -> tuple[Partition, Filesystem]:
    """Find the partition with the root filesystem.

    Raises:
        ConfigError: none or several could be meant, with a list of all; or there is no such number.
        DataError: this is no image, or its partition table is damaged.
    """
    with reader(image) as (read, size):
        table = read_table(read, size)
        held = {part: identify(read, part.start) for part in table.partitions}
    listed = "; ".join(_told(part, filesystem) for part, filesystem in held.items())
    if table.scheme == "none":
        refuse_packed(image, held[table.partitions[0]].kind)
    if number is not None:
        found = [part for part in held if part.number == number]
        if not found or not held[found[0]].is_ext:
            raise ConfigError(f"--partition {number}: no ext4 partition of {image}; it has: {listed}")
        return found[0], held[found[0]]
    found = [part for part in held if held[part].is_ext and _tree(programs, image, part).is_root()]
    if len(found) != 1:
        what = f"{len(found)} root filesystems" if found else "no ext4 root filesystem"
        hint = "name one with --partition N; " if found else ""
        raise ConfigError(f"{image}: {what}; {hint}it has: {listed}")
    return found[0], held[found[0]]


def _told(part: Partition, filesystem: Filesystem) -> str:
    names = " ".join(f"'{name}'" for name in dict.fromkeys((part.name, filesystem.label)) if name)
    return f"{part.number}: {filesystem.kind} {names} {part.size / 1e6:.0f} MB".replace("  ", " ")


def _tree(programs: Programs, image: Path, part: Partition) -> Tree:
    if programs.has(*ext4.NEEDS):
        return Debugfs(programs, image, part)
    if os.geteuid() == 0 and programs.has(*mounted.NEEDS):
        return Mounted(programs, image, part)
    raise NotReadyError("to write into an image: install e2fsprogs (debugfs, e2fsck), or run as root to mount it")


def _refuse_unfit(image: Path, part: Partition, filesystem: Filesystem) -> None:
    if filesystem.in_use:
        says = f"{image}: partition {part.number} was in use when the image was made: its journal is not empty"
        how = f"mount -o loop,offset={part.start} {image} /mnt && umount /mnt"
        raise StoreError(f"{says}; have it played back by mounting it once, as root: {how}")
    if filesystem.size > part.size:
        says = f"{image}: the filesystem has {filesystem.size} bytes, its partition {part.number} {part.size}"
        raise DataError(f"{says}; writing would reach into the next one")


def _needed(plan: Plan, changes: tuple[Change, ...], filesystem: Filesystem) -> int:
    """Bytes that the filesystem must have free: whole blocks of what is written, a block for each new folder, some."""
    wrong = {change.path for change in changes if change.action != "keep"}
    sizes = [len(file.content) for file in plan.files if file.path in wrong]
    folders = {folder for path in wrong for folder in parents(path)}
    blocks = sum(ceil(size / filesystem.block) + ceil(size / filesystem.block / 1000) for size in sizes)
    return (blocks + len(folders)) * filesystem.block + _SPARE


def _grow(programs: Programs, work: Path, part: Partition, filesystem: Filesystem, needed: int) -> None:
    """Let the filesystem fill its partition, and make that larger where it is the last one and still too small.

    It grows in a file of its own: resize2fs would cut the image off behind it.

    Raises:
        StoreError: another partition follows.
        NotReadyError: there is no resize2fs.
    """
    if not programs.has("resize2fs", "e2fsck"):
        raise NotReadyError("the filesystem must grow: install e2fsprogs (resize2fs)")
    lacks = needed - filesystem.free - (part.size - filesystem.size)
    grown = part if lacks <= 0 else _enlarged(work, part, int(lacks * _OVERHEAD))
    with TemporaryDirectory(prefix=".roadcast-", dir=work.parent) as folder:
        alone = Path(folder) / "filesystem"
        with alone.open("wb") as target, work.open("rb") as source:
            copy_bytes(source.fileno(), target.fileno(), part.start, 0, part.size)
            target.truncate(grown.size)
        programs.run("e2fsck", "-fp", alone.name, folder=alone.parent, good=(0, 1))
        programs.run("resize2fs", alone.name, folder=alone.parent)
        with alone.open("rb") as source, work.open("r+b") as target:
            copy_bytes(source.fileno(), target.fileno(), 0, part.start, min(grown.size, alone.stat().st_size))


def _enlarged(work: Path, part: Partition, extra: int) -> Partition:
    with reader(work) as (read, size):
        growth = grow(read, size, part, extra)
    with work.open("r+b") as file:
        file.truncate(growth.size)
        file.seek(part.start + part.size)
        file.write(bytes(growth.partition.size - part.size))  # what was there is no part of a filesystem
        for at, patch in growth.patches.items():
            file.seek(at)
            file.write(patch)
    with reader(work) as (read, size):
        if growth.partition not in read_table(read, size).partitions:
            raise StoreError(f"partition {part.number} could not be made larger; use parted")
    return growth.partition
