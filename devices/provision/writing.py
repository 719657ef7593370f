"""Writes an image to a disk, and reads back what it wrote. Owns no choice of disk.

The first piece, where the partition table lies, is wiped first and written last, and the disk must keep each before it
goes on: a card that was pulled out halfway starts no board. The kernel's memory of what was written is dropped before
it is read back, so the card answers itself.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from devices.provision.blockmap import MOST, Span, read_block_map
from devices.provision.copies import reader, refuse_packed
from devices.provision.disks import Disk
from devices.provision.filesystems import identify
from devices.provision.partitions import read_table
from edge_protocol.errors import CheckFailedError, ConfigError, DataError, NotReadyError, StoreError

_PIECE: Final = 4 << 20
_WIPED: Final = 4096
_FORGET, _REREAD = 0x1261, 0x125F
"""BLKFLSBUF and BLKRRPART of ``linux/fs.h``."""

Told = Callable[[str, int, int], None]
"""Takes what goes on (``writing``, ``reading back``), how many bytes of it are done, and of how many."""


class Written(msgspec.Struct, frozen=True):
    """What lies on the disk.

    Attributes:
        disk: where.
        image_bytes: size of the image.
        bytes: that were written and read back; fewer with a block map.
        block_map: whether there was one.
    """

    disk: str
    image_bytes: int
    bytes: int
    block_map: bool


def spans_of(image: Path, block_map: Path | None) -> tuple[Span, ...]:
    """What of an image must be written: all, or what its block map says.

    Raises:
        ConfigError: a file cannot be read.
        DataError: the image is empty, or the block map is damaged or another image's.
    """
    try:
        size = image.stat().st_size
        if block_map is None:
            if not size:
                raise DataError(f"{image} is empty")
            return (Span(0, size),)
        with block_map.open("rb") as file:
            return read_block_map(file.read(MOST + 1), size)
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be read: {error.strerror}") from error


def has_table(image: Path) -> bool:
    """Whether an image has a partition table; False for one filesystem without.

    Raises:
        ConfigError: it cannot be read, or is no file.
        DataError: it is packed, cut off or damaged, or nothing that a board starts from.
    """
    with reader(image) as (read, size):
        table, kind = read_table(read, size), identify(read, 0).kind
    if table.scheme == "none":
        refuse_packed(image, kind)
    if table.scheme == "none" and kind == "unknown":
        raise DataError(f"{image} has neither a partition table nor a filesystem; is it the image, and whole?")
    return table.scheme != "none"


def check_fit(image: Path, disk: Disk, spans: Sequence[Span]) -> None:
    """Refuse a disk that cannot take an image.

    Raises:
        ConfigError: image and disk are the same file.
        StoreError: the disk is too small.
    """
    if image.samefile(disk.path):
        raise ConfigError(f"{image} is written onto itself")
    end = max(span.start + span.size for span in spans)
    if end > disk.size:
        raise StoreError(f"{disk.path} has {disk.size} bytes, {end - disk.size} too few for {image}")


def write(image: Path, disk: Disk, spans: Sequence[Span], told: Told) -> int:
    """Write and read back.

    Args:
        image: the file.
        disk: where to; see `disks.disk_of`.
        spans: what of it; see `spans_of`.
        told: hears how far it is.

    Returns:
        The bytes that were written.

    Raises:
        ConfigError: image and disk are the same file.
        CheckFailedError: the disk gives back something else, or the image is not what the block map says.
        NotReadyError: somebody else has the disk, or this user may not write to it.
        StoreError: it is too small, or refused.
    """
    check_fit(image, disk, spans)
    total, done = sum(span.size for span in spans), 0
    hashes: list[tuple[int, int, bytes]] = []
    begin = b""
    with _opened(disk) as target, image.open("rb") as source:
        for at, piece in _pieces(source.fileno(), spans):
            hashes.append((at, len(piece), sha256(piece).digest()))
            if at == 0:
                begin = piece
            _put(target, piece if at else bytes(min(_WIPED, len(piece))), at)
            if at == 0:
                os.fsync(target)
            done += len(piece)
            told("writing", done, total)
        os.fsync(target)
        _put(target, begin, 0)
        os.fsync(target)
        _forget(target, disk)
    _read_back(disk, hashes, total, told)
    return total


def _pieces(source: int, spans: Sequence[Span]) -> Iterator[tuple[int, bytes]]:
    """The bytes of the spans with where they go, checked against the block map's hashes."""
    for span in spans:
        digest, at, end = sha256(), span.start, span.start + span.size
        while at < end:
            piece = os.pread(source, min(_PIECE, end - at), at)
            if not piece:
                raise StoreError("the image became shorter while it was written")
            digest.update(piece)
            yield at, piece
            at += len(piece)
        if span.sha256 not in {None, digest.hexdigest()}:
            says = f"bytes {span.start} to {end - 1} of the image are not those of its block map"
            raise DataError(f"{says}; fetch it again. The disk was left without a partition table")


def _read_back(disk: Disk, hashes: Sequence[tuple[int, int, bytes]], total: int, told: Told) -> None:
    done = 0
    with _reported(disk), disk.path.open("rb", buffering=0) as file:
        for at, size, digest in hashes:
            told("reading back", done, total)
            if sha256(os.pread(file.fileno(), size, at)).digest() != digest:
                says = f"{disk.path}: what was written at byte {at} reads back differently"
                raise CheckFailedError(f"{says}; the card is worn out or smaller than it says: use another")
            done += size
        told("reading back", done, total)
        if disk.path.is_block_device():
            with suppress(OSError):  # the kernel may find the new partitions when the card is put in again
                fcntl.ioctl(file.fileno(), _REREAD)


@contextmanager
def _opened(disk: Disk) -> Iterator[int]:
    """The disk to write to, and nobody else's meanwhile: Linux refuses O_EXCL on a disk that is in use."""
    with _reported(disk):
        exclusive = os.O_EXCL if disk.path.is_block_device() else 0
        handle = os.open(disk.path, os.O_RDWR | os.O_CLOEXEC | exclusive)
        try:
            yield handle
        finally:
            os.close(handle)


def _put(target: int, piece: bytes, at: int) -> None:
    view = memoryview(piece)
    while view:
        count = os.pwrite(target, view, at)
        view, at = view[count:], at + count


def _forget(target: int, disk: Disk) -> None:
    """Drop what the kernel remembers of the disk, so that reading asks the card."""
    os.posix_fadvise(target, 0, 0, os.POSIX_FADV_DONTNEED)
    if disk.path.is_block_device():
        with suppress(OSError):  # needs root; without it the advice above has done most
            fcntl.ioctl(target, _FORGET)


@contextmanager
def _reported(disk: Disk) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise NotReadyError(f"{disk.path} is in use; unmount what is on it") from error
        if error.errno in {errno.EACCES, errno.EPERM}:
            raise NotReadyError(f"{disk.path} may not be written to by this user; run it with sudo") from error
        raise StoreError(f"{disk.path}: {error.strerror}; was it pulled out, is it full or worn out?") from error
