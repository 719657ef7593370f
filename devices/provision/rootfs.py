"""Carries a plan out in a root filesystem tree, such as NVIDIA's ``Linux_for_Tegra/rootfs``. Owns no plan.

The tree is somebody else's, so no link in it is followed: each folder is opened below the one before it, and a link in
the way is refused. A file is written beside its place, synced, and renamed. What is right already is not touched, so a
second run writes nothing, and a run that was cut off is finished by the next. As root, everything written is root's.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path, PurePosixPath

from devices.provision.changes import Change, check_paths, diff_of, is_secret
from devices.provision.leftovers import left_over, named
from devices.provision.plan import INSTALLED, Plan, PlannedFile, PlannedLink
from edge_protocol.errors import ConfigError, StoreError
from edge_protocol.files import alone

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def carry_out(plan: Plan, root: Path, *, dry_run: bool = False) -> tuple[Change, ...]:
    """Write what a plan wants into a tree.

    Args:
        plan: what must lie there.
        root: the tree.
        dry_run: only say what would change.

    Raises:
        ConfigError: the tree is this machine's own root, or no root filesystem; or a path would leave it.
        NotReadyError: another run is writing it.
        StoreError: a link or something else is in the way, or the disk refused.
    """
    if not (root / "etc").is_dir():
        raise ConfigError(f"{root}: no root filesystem, for it has no etc; for a Jetson: Linux_for_Tegra/rootfs")
    if root.samefile("/"):  # or a bind mount of it
        raise ConfigError("the tree is the root of this machine; name the tree of the device")
    check_paths(plan)
    with nullcontext() if dry_run else alone(root, "flash"):  # who only looks keeps nobody away
        return _carried(plan, root, dry_run=dry_run)


def _carried(plan: Plan, root: Path, *, dry_run: bool) -> tuple[Change, ...]:
    with _parent(root, INSTALLED, make=False) as (folder, name):
        listed = None if folder is None else _read(folder, name, INSTALLED)
    had, stale = named(listed and listed[0]), left_over(plan, listed and listed[0])
    gone = [path for path in stale if _remove(root, path, dry_run=dry_run)]
    made = [_file(root, file, file.once and file.path in had, dry_run=dry_run) for file in plan.files]
    links = [_link(root, link, dry_run=dry_run) for link in plan.links]
    return (*made, *links, *(Change(path, "remove") for path in gone))


def _remove(root: Path, path: str, *, dry_run: bool) -> bool:
    """Take a file or a link away, or a folder that is empty; return whether there was one."""
    with _parent(root, path.removesuffix("/"), make=False) as (folder, name), _reported(path):
        if folder is None:
            return False
        try:
            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return False
        if path.endswith("/"):
            if stat.S_ISDIR(mode) and not dry_run:
                with suppress(OSError):  # somebody else has put something in
                    os.rmdir(name, dir_fd=folder)
            return stat.S_ISDIR(mode)
        found = stat.S_ISREG(mode) or stat.S_ISLNK(mode)
        if found and not dry_run:
            os.unlink(name, dir_fd=folder)
            os.fsync(folder)
        return found


def _file(root: Path, file: PlannedFile, used: bool, *, dry_run: bool) -> Change:  # noqa: FBT001  kept private
    with _parent(root, file.path, make=not dry_run) as (folder, name):
        before = None if folder is None else _read(folder, name, file.path)
        if used if before is None else _is_right(file, *before):
            return Change(file.path, "keep")
        if not dry_run and folder is not None:
            _write(folder, name, file)
        return Change(file.path, "add" if before is None else "change", diff_of(file, before and before[0]))


def _link(root: Path, link: PlannedLink, *, dry_run: bool) -> Change:
    with _parent(root, link.path, make=not dry_run) as (folder, name):
        before = None if folder is None else _target(folder, name)
        if before == link.target:
            return Change(link.path, "keep")
        if not dry_run and folder is not None:
            with _reported(link.path):
                beside = f".{name}.roadcast"
                with suppress(FileNotFoundError):
                    os.unlink(beside, dir_fd=folder)
                os.symlink(link.target, beside, dir_fd=folder)
                os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
                os.fsync(folder)
        return Change(link.path, "add" if before is None else "change")


@contextmanager
def _parent(root: Path, path: str, *, make: bool) -> Iterator[tuple[int | None, str]]:
    """Open the folder of a path below the root, without following a link; None where it is missing and not made."""
    *folders, name = PurePosixPath(path).parts[1:]
    with _reported(path):
        handle: int | None = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder in folders:
            if handle is None:
                break
            with _reported(path):
                below = _enter(handle, folder, make=make)
            os.close(handle)
            handle = below
        yield handle, name
    finally:
        if handle is not None:
            os.close(handle)


def _enter(handle: int, folder: str, *, make: bool) -> int | None:
    try:
        return os.open(folder, _FOLDER, dir_fd=handle)
    except FileNotFoundError:
        if not make:
            return None
        os.mkdir(folder, 0o755, dir_fd=handle)
        os.fsync(handle)
        made = os.open(folder, _FOLDER, dir_fd=handle)
        os.fchmod(made, 0o755)  # whatever the umask of who runs this
        return made


def _is_right(file: PlannedFile, content: bytes, status: os.stat_result) -> bool:
    """Whether a file is as planned; who is not root cannot give it to root, and a secret's group is the device's."""
    ours = os.geteuid() != 0 or (status.st_uid == 0 and (status.st_gid == 0 or is_secret(file)))
    return content == file.content and stat.S_IMODE(status.st_mode) == file.mode and ours


def _read(folder: int, name: str, path: str) -> tuple[bytes, os.stat_result] | None:
    """Content and status of a regular file; None where there is none."""
    with _reported(path):
        try:
            handle = os.open(name, _READ, dir_fd=folder)
        except FileNotFoundError:
            return None
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise StoreError(f"{path}: something that is no file is in the way; remove it from the tree")
            return file.read(), status


def _write(folder: int, name: str, file: PlannedFile) -> None:
    beside = f".{name}.roadcast"
    with _reported(file.path):
        with suppress(FileNotFoundError):
            os.unlink(beside, dir_fd=folder)
        try:
            with os.fdopen(os.open(beside, _NEW, 0o600, dir_fd=folder), "wb") as written:
                written.write(file.content)
                written.flush()
                if os.geteuid() == 0:
                    os.fchown(written.fileno(), 0, 0)
                os.fchmod(written.fileno(), file.mode)
                os.fsync(written.fileno())
            os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
        except OSError:
            with suppress(OSError):
                os.unlink(beside, dir_fd=folder)
            raise


def _target(folder: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{name}: something that is no link is in the way; remove it from the tree") from error


@contextmanager
def _reported(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR}:
            raise StoreError(f"{path}: a link or file in the tree is in the way; none is followed") from error
        raise StoreError(f"cannot write {path} in the tree: {error.strerror or error}; run it with sudo?") from error
