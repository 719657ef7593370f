"""What a device trusts, on its disk: signed metadata and the release floor in one file, kept twice; owns no rule.

A file is the SHA-256 of what follows and MessagePack. The whole one with the higher number counts, so that neither a
torn write nor a damaged sector brings older metadata or a lower floor back.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import msgspec

from edge_client.disk import Disk
from edge_protocol.trust import TrustedMetadata, clock_floor_s, commissioned

CLOCK_FLOOR_S = 1_767_225_600.0
"""2026-01-01: a clock that shows less has not been set since the board was switched on."""
_FILES = ("trust-a.bin", "trust-b.bin")
_DIGEST = 32


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """One file: how often it was written, what is trusted, and the highest release that was ever committed."""

    number: int = 0
    trusted: TrustedMetadata
    release: int = 0


class TrustStore:
    """The trust of one task.

    Args:
        folder: ``<state>/<task>``.
        root: that the device was commissioned with; what is on disk counts only as far as it goes on from there.
        disk: how to write.

    Raises:
        TrustError: `root` is no root.
    """

    def __init__(self, folder: Path, root: bytes, disk: Disk | None = None) -> None:
        self._folder, self._disk = folder, disk or Disk()
        found = [kept for name in _FILES if (kept := _read(folder / name)) is not None]
        kept = max(found, key=lambda each: each.number, default=_Kept(trusted=commissioned(root)))
        self._kept = msgspec.structs.replace(
            kept,
            trusted=_going_on(kept.trusted, root),
            release=max((each.release for each in found), default=0),
        )
        self._clock_floor_s = clock_floor_s(self._kept.trusted)

    @property
    def trusted(self) -> TrustedMetadata:
        """What was verified last."""
        return self._kept.trusted

    @property
    def release_floor(self) -> int:
        """The highest release that was ever committed here: nothing below it is taken again."""
        return self._kept.release

    @property
    def clock_floor_s(self) -> float:
        """The time that is past for sure, seconds since 1970; a clock that shows less is wrong."""
        return max(CLOCK_FLOOR_S, self._clock_floor_s)

    def keep(self, trusted: TrustedMetadata) -> None:
        """Trust newer metadata, once they are on disk.

        Raises:
            StoreError: the disk refused; what was trusted before still is.
        """
        if trusted != self._kept.trusted:
            self._write(msgspec.structs.replace(self._kept, trusted=trusted))
            self._clock_floor_s = clock_floor_s(trusted)

    def raise_floor(self, release: int) -> None:
        """A release was committed.

        Raises:
            StoreError: the disk refused.
        """
        if release > self._kept.release:
            self._write(msgspec.structs.replace(self._kept, release=release))

    def _write(self, kept: _Kept) -> None:
        kept = msgspec.structs.replace(kept, number=kept.number + 1)
        data = msgspec.msgpack.encode(kept)
        for name in _FILES:
            self._disk.write_atomic(self._folder / name, sha256(data).digest() + data)
        self._kept = kept


def _read(path: Path) -> _Kept | None:
    """A file, or None when it is missing or damaged: the other one is there for that."""
    try:
        data = path.read_bytes()
        if sha256(data[_DIGEST:]).digest() != data[:_DIGEST]:
            return None
        return msgspec.msgpack.decode(data[_DIGEST:], type=_Kept)
    except (OSError, msgspec.DecodeError):
        return None


def _going_on(trusted: TrustedMetadata, root: bytes) -> TrustedMetadata:
    """What is on disk, as far as the chain from the commissioned root leads to it; else a new beginning."""
    if root not in trusted.roots:
        return commissioned(root)
    return msgspec.structs.replace(trusted, roots=trusted.roots[trusted.roots.index(root) :])
