"""Copies of images: sparse, whole or not at all, and in the image's place only once they are on the disk."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from devices.provision.filesystems import PACKED
from devices.provision.partitions import Read
from edge_protocol.errors import ConfigError, DataError, NotReadyError, StoreError

_PIECE = 1 << 20


@contextmanager
def reader(image: Path) -> Iterator[tuple[Read, int]]:
    """Give a function that reads an image, and the image's size in bytes.

    Raises:
        ConfigError: it cannot be read, or is no file.
    """
    try:
        with os.fdopen(os.open(image, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # a FIFO would wait
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"--image: {image} is no file; a disk is written with --disk")
            yield lambda at, size: os.pread(file.fileno(), size, at), status.st_size
    except OSError as error:
        raise ConfigError(f"--image: {image} cannot be read: {error.strerror or error}") from error


def refuse_packed(image: Path, kind: str) -> None:
    """Refuse a file that must be unpacked before it is an image.

    Raises:
        DataError: `kind` says so.
    """
    if kind in PACKED:
        raise DataError(f"{image}: this is {kind}, not an image; unpack it first")


@contextmanager
def changed_copy(image: Path, out: Path) -> Iterator[Path]:
    """Copy an image beside where it shall be, to be changed; put it there once that is done and on the disk.

    What a run that was killed left beside it is taken over by the next one. It holds secrets: nobody else may read it,
    and put elsewhere than in the image's place its owner alone.

    Raises:
        NotReadyError: another run is making the same copy.
        StoreError: the disk refused; the image is as it was.
    """
    image, out = image.resolve(), out.resolve()
    work = out.with_name(f".{out.name}.roadcast")
    handle = -1
    try:
        handle = os.open(work, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        _lock(handle, work, out)
        try:
            _fill(image, handle)
            if out != image:
                os.fchmod(handle, 0o600)
            yield work
            os.fsync(handle)
            work.replace(out)
        except BaseException:
            work.unlink(missing_ok=True)
            raise
        _sync(out.parent)
    except OSError as error:
        says = f"{out}: the image cannot be written: {error.strerror or error}"
        raise StoreError(f"{says}; it is as it was") from error
    finally:
        if handle >= 0:
            os.close(handle)


def _lock(handle: int, work: Path, out: Path) -> None:
    """Take the copy for this run; whoever has it may also have put it in its place a moment ago."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        taken = os.path.samestat(os.fstat(handle), work.lstat())
    except (BlockingIOError, FileNotFoundError):
        taken = False
    if not taken:
        raise NotReadyError(f"{out}: another run is writing it; wait for it to end")


def _fill(image: Path, target: int) -> None:
    with image.open("rb") as source:
        status = os.fstat(source.fileno())
        os.ftruncate(target, 0)
        os.ftruncate(target, status.st_size)
        copy_bytes(source.fileno(), target, 0, 0, status.st_size)
        os.fchmod(target, stat.S_IMODE(status.st_mode) & ~stat.S_IRWXO)
        with suppress(PermissionError):
            os.fchown(target, status.st_uid, status.st_gid)


def copy_bytes(source: int, target: int, start: int, to: int, size: int) -> None:
    """Copy a range between files; a hole stays one where the target has it too, and is zeros where that has bytes.

    Args:
        source: file descriptor to read from.
        target: one to write to.
        start: first byte in the source.
        to: where it goes.
        size: how many bytes.

    Raises:
        StoreError: the source became shorter.
    """
    shift = to - start
    for hole, data, end in _extents(source, start, start + size):
        for _, used, unused in _extents(target, hole + shift, data + shift):
            at = used
            while at < unused:
                at += os.pwrite(target, bytes(min(_PIECE, unused - at)), at)
        at = data
        while at < end:
            piece = os.pread(source, min(_PIECE, end - at), at)
            if not piece:
                raise StoreError("the image became shorter while it was read")
            at += os.pwrite(target, piece, at + shift)


def _extents(file: int, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """A range of a file, as holes with what follows each: where the hole begins, where the bytes do, where they end."""
    at = start
    while at < end:
        try:
            data = min(os.lseek(file, at, os.SEEK_DATA), end)
        except OSError:  # nothing but a hole is left
            data = end
        hole = end if data >= end else min(os.lseek(file, data, os.SEEK_HOLE), end)
        yield at, data, hole
        at = hole


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
