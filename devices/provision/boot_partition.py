"""Puts a seed for cloud-init into the FAT boot partition of an image, without root, by mtools. Owns no seed.

For images whose root filesystem nobody may or can write into, and that look for a seed there: Ubuntu's for Raspberry Pi
(``system-boot``), newer Raspberry Pi OS (``bootfs``), and any with a partition called ``CIDATA``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from devices.provision.changes import Change
from devices.provision.cloud_init import BESIDE
from devices.provision.copies import changed_copy, reader
from devices.provision.filesystems import identify
from devices.provision.partitions import Partition, read_table
from devices.provision.plan import INSTALLED
from devices.provision.programs import Programs
from edge_protocol.errors import ConfigError, NotReadyError, StoreError

_LABELS: Final = frozenset({"cidata", "system-boot", "bootfs"})
_MISSING: Final = 1
"""Exit status of mtype for a file that is not there."""


def write_seed(
    files: Mapping[str, bytes],
    image: Path,
    *,
    out: Path | None = None,
    partition: int | None = None,
    dry_run: bool = False,
    programs: Programs | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> tuple[Change, ...]:
    """Write the files of a seed into the boot partition of an image, in place of an earlier one.

    Args:
        files: content by name.
        image: see `image.carry_out`, for the others too.
        out: where the changed image is put.
        partition: the number of the one that is meant.
        dry_run: only say what would change.
        programs: starts mtools.
        warn: hears what is written over that is no earlier seed's.

    Raises:
        ConfigError: no partition, or several, could be meant.
        DataError: the partition table is damaged.
        NotReadyError: there is no mtools.
        StoreError: the partition is full, or gives back something else.
    """
    programs = programs or Programs()
    if not programs.has("mcopy", "mdel", "mdir", "mtype"):
        raise NotReadyError("to write into a boot partition: install mtools (mcopy, mdel, mdir, mtype)")
    chosen = _choose(image, partition)
    changes, foreign = _look(programs, image, chosen, files)
    if foreign:
        warn(f"the boot partition's {', '.join(foreign)}: of no earlier seed, and replaced; merge what you need")
    right = all(change.action == "keep" for change in changes)
    if dry_run or (right and out is None):
        return changes
    with changed_copy(image, out or image) as work:
        _write(programs, work, chosen, files, [change for change in changes if change.action != "keep"])
        left = [change.path for change in _look(programs, work, chosen, files)[0] if change.action != "keep"]
        if left:
            raise StoreError(f"written, but {left[0]} in the boot partition reads back differently")
    return changes


def _choose(image: Path, number: int | None) -> Partition:
    with reader(image) as (read, size):
        held = {part: identify(read, part.start) for part in read_table(read, size).partitions}
    found = [
        part
        for part, filesystem in held.items()
        if filesystem.kind == "FAT"
        and (filesystem.label.lower() in _LABELS if number is None else part.number == number)
    ]
    if len(found) != 1:
        listed = "; ".join(f"{part.number}: {held[part].kind} '{held[part].label}'" for part in held)
        says = f"{image}: {len(found)} FAT partitions called system-boot, bootfs or CIDATA"
        raise ConfigError(f"{says if number is None else f'--partition {number}: no FAT'}; it has: {listed}")
    return found[0]


def _look(
    programs: Programs, image: Path, part: Partition, files: Mapping[str, bytes]
) -> tuple[tuple[Change, ...], list[str]]:
    """What a seed changes, and of that the files that nobody here has written."""
    found: dict[str, bytes] = {}
    with TemporaryDirectory(prefix="roadcast-") as name:
        folder = Path(name)
        at = _at(folder, image, part)
        for path in files:
            ran = programs.run("mtype", "-i", at, f"::{path}", folder=folder, good=(0, _MISSING))
            if ran.status == 0:
                found[path] = ran.out
        listed = programs.run("mdir", "-b", "-i", at, "::", folder=folder, good=(0, _MISSING)).out
    names = (line.removeprefix("::/") for line in listed.decode("utf-8", "replace").splitlines())
    changes = [
        Change(path, "add" if path not in found else "keep" if found[path] == content else "change")
        for path, content in files.items()
    ]
    stale = [Change(path, "remove") for path in names if BESIDE.fullmatch(path) and path not in files]
    ours = INSTALLED.encode() in found.get("user-data", b"")
    return (*changes, *stale), [] if ours else [change.path for change in changes if change.action == "change"]


def _write(
    programs: Programs, image: Path, part: Partition, files: Mapping[str, bytes], changes: Sequence[Change]
) -> None:
    """Take away first what is of no use any more: the partition is small."""
    with TemporaryDirectory(prefix="roadcast-") as name:
        folder = Path(name)
        at = _at(folder, image, part)
        for change in sorted(changes, key=lambda change: change.action != "remove"):
            if change.action == "remove":
                programs.run("mdel", "-i", at, f"::{change.path}", folder=folder)
                continue
            (folder / "content").write_bytes(files[change.path])
            programs.run("mcopy", "-o", "-i", at, "content", f"::{change.path}", folder=folder)


def _at(folder: Path, image: Path, part: Partition) -> str:
    """A plain name for mtools, which reads an offset out of it."""
    (folder / "image").symlink_to(image.absolute())
    return f"image@@{part.start}"
