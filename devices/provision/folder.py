"""Writes a few files into a folder of this machine, for somebody to carry on; what is right already is not touched."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp

from devices.provision.changes import Change
from edge_protocol.errors import StoreError


def write_folder(
    folder: Path, files: Mapping[str, bytes], *, stale: re.Pattern[str] | None = None, dry_run: bool = False
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
    changes = []
    for name, content in files.items():
        path = folder / name
        try:
            before = path.read_bytes() if path.is_file() else None
            if before != content and not dry_run:
                folder.mkdir(parents=True, exist_ok=True)
                _write(path, content)
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error
        changes.append(Change(str(path), "add" if before is None else "keep" if before == content else "change"))
    return (*changes, *_removed(folder, files, stale, dry_run=dry_run))


def _removed(
    folder: Path, files: Mapping[str, bytes], stale: re.Pattern[str] | None, *, dry_run: bool
) -> Iterator[Change]:
    for path in sorted(folder.iterdir()) if stale is not None and folder.is_dir() else ():
        if stale.fullmatch(path.name) and path.name not in files and path.is_file():
            if not dry_run:
                path.unlink()
            yield Change(str(path), "remove")


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
