"""A folder that stands for the root of a target, a small plan for it, and what tests ask of both."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from devices.provision.changes import Change
from devices.provision.plan import Plan, PlannedFile, PlannedLink
from devices.provision.ssh import Place, flash_target
from tests.fakes.sshd import Sshd

UNIT = PlannedFile("/etc/systemd/system/roadcast-agent.service", b"[Service]\nType=notify\n")
SECRET = PlannedFile("/etc/roadcast/key.pem", b"secret", 0o640)
WHEEL = PlannedFile("/opt/roadcast/wheels/it's; touch $(HOME) `x` *.whl", bytes(range(256)) * 4000)
LINK = PlannedLink("/etc/systemd/system/multi-user.target.wants/roadcast-agent.service", UNIT.path)
PLAN = Plan((UNIT, SECRET, WHEEL), (LINK,))
TOOLS = (
    "cat chmod chown date flock head id ln mkdir mv python3 readlink rm rmdir sh sha256sum stat sync timeout true uname"
)
"""What the target's half starts."""


def flash(sshd: Sshd, tree: Path, plan: Plan = PLAN, *, dry_run: bool = False) -> tuple[Change, ...]:
    """Flash one target below a folder, with its fingerprint pinned."""
    target, place = sshd.target(fingerprint=sshd.fingerprint), Place(str(tree), live=False)
    return asyncio.run(flash_target(target, plan, sshd.login, place, dry_run=dry_run))


def snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """Every path below a folder with inode, times, mode, owner and content."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        facts = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_mode, status.st_uid, status.st_gid)
        found[str(path.relative_to(root))] = (*facts, content)
    return found


def contents(root: Path) -> dict[str, object]:
    """Content and mode of every file; what a rollback must bring back."""
    return {
        str(path.relative_to(root)): (path.lstat().st_mode, path.readlink() if path.is_symlink() else path.read_bytes())
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def tools_path(folder: Path, *without: str, **scripts: str) -> str:
    """A PATH of this machine's programs, without some, and with scripts in the place of others; nobody sleeps there."""
    folder.mkdir()
    for name in TOOLS.split():
        found = shutil.which(name, path="/usr/bin:/bin")
        if name not in without and found is not None:
            (folder / name).symlink_to(found)
    for name, text in {"sleep": "exit 0", **scripts}.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return str(folder)
