"""Writes a few files into a folder of this machine, for somebody to carry on; what is right already is not touched."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp
from typing import Final

from devices.provision.changes import Change
from edge_protocol.errors import StoreError

_NONE: Final = re.compile("(?!)")


def write_folder(
    folder: Path, files: Mapping[str, bytes], *, stale: re.Pattern[str] = _NONE, dry_run: bool = False
) -> tuple[Change, ...]:
    """Write files, each whole or not at all. Only their owner may read them: configurations hold secrets.

    Args:
        folder: made when it is missing.
        files: content by plain name.
        stale: what others are called that an earlier run left; they are removed in the end.
        dry_run: only say what would change.

    Raises:
        StoreError: the disk refused.
    """
    changes, path = [], folder
    try:
        for name, content in files.items():
            path = folder / name
            before = path.read_bytes() if path.is_file() else None
            if before != content and not dry_run:
                folder.mkdir(parents=True, exist_ok=True)
                _write(path, content)
            changes.append(Change(str(path), "add" if before is None else "keep" if before == content else "change"))
        for path in _files(folder):
            if stale.fullmatch(path.name) and path.name not in files:
                if not dry_run:
                    path.unlink()
                changes.append(Change(str(path), "remove"))
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error
    return tuple(changes)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def _write(path: Path, content: bytes) -> None:
    handle, name = mkstemp(prefix=".roadcast-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(handle)
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
