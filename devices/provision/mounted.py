"""Carries a plan out in a filesystem inside an image by mounting it: as root, where e2fsprogs is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from devices.findings import Finding
from devices.provision import rootfs
from devices.provision.changes import Change
from devices.provision.partitions import Partition
from devices.provision.plan import Plan
from devices.provision.programs import Programs
from devices.provision.system_checks import Folder, check_system
from edge_protocol.errors import StoreError

NEEDS: Final = ("mount", "umount")


class Mounted:
    """A filesystem at an offset of a file, mounted while it is looked at or written."""

    def __init__(self, programs: Programs, image: Path, partition: Partition) -> None:
        self._programs, self._image, self._partition = programs, image.absolute(), partition

    def is_root(self) -> bool:
        """Whether there are the folders etc and usr."""
        with self._at("ro") as root:
            return all((root / name).is_dir() and not (root / name).is_symlink() for name in ("etc", "usr"))

    def look(self, plan: Plan) -> tuple[Change, ...]:
        """Say what a plan would change."""
        with self._at("ro") as root:
            return rootfs.carry_out(plan, root, dry_run=True)

    def write(self, plan: Plan) -> None:
        """Carry a plan out, and look again once it was unmounted."""
        with self._at("rw") as root:
            rootfs.carry_out(plan, root)
        left = [change.path for change in self.look(plan) if change.action != "keep"]
        if left:
            raise StoreError(f"written, but {left[0]} reads back differently")

    def check(self, machine: str, python: str) -> tuple[Finding, ...]:
        """What keeps the agent from running there."""
        with self._at("ro") as root:
            return tuple(check_system(Folder(root), machine, python))

    @contextmanager
    def _at(self, mode: str) -> Iterator[Path]:
        part = self._partition
        how = f"loop,{mode},nodev,nosuid,noexec,offset={part.start},sizelimit={part.size}"
        with TemporaryDirectory(prefix="roadcast-") as name:
            self._programs.run("mount", "-o", how, os.fspath(self._image), name, folder=Path(name).parent)
            try:
                yield Path(name)
            finally:
                self._programs.run("umount", name, folder=Path(name).parent)
