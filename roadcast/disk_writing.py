"""`roadcast flash --disk`: which block map, the question before a disk is written over, and how far it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from devices.provision.disks import Disk, disk_of
from devices.provision.writing import Told, Written, check_fit, spans_of, write
from edge_protocol.errors import ConfigError
from roadcast.output import stderr

if TYPE_CHECKING:
    from rich.progress import TaskID


def write_disk(image: Path, path: Path, block_map: Path | None, *, yes: bool, dry_run: bool) -> Written:
    """Look at the disk, ask once, write and read back.

    Args:
        image: the file.
        path: of the disk.
        block_map: of the image; None for none.
        yes: do not ask.
        dry_run: only look.
    """
    disk, spans = disk_of(path), spans_of(image, block_map)
    check_fit(image, disk, spans)
    size, planned = image.stat().st_size, sum(span.size for span in spans)
    if dry_run:
        return Written(str(path), size, 0, block_map is not None)
    what = f"Write {planned / 1e9:.2f} GB over everything on {_named(disk)}?"
    if not yes and not typer.confirm(what, err=True):
        raise ConfigError("nothing was written; answer y, or give --yes")
    with _shown() as told:
        return Written(str(path), size, write(image, disk, spans, told), block_map is not None)


def block_map_beside(image: Path) -> Path | None:
    """The block map of an image, where bmaptool and image builders put it; None when there is none."""
    beside = (image.with_name(f"{image.name}.bmap"), image.with_suffix(".bmap"))
    return next((path for path in beside if path.is_file()), None)


def _named(disk: Disk) -> str:
    kind = "removable" if disk.removable else "NOT a removable disk" if disk.model else "a file"
    return f"{disk.path} ({', '.join(filter(None, (disk.model, f'{disk.size / 1e9:.1f} GB', kind)))})"


@contextmanager
def _shown() -> Iterator[Told]:
    """A bar with rate and remaining time on a terminal; nothing in a pipe."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = stderr()
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        tasks: dict[str, TaskID] = {}

        def told(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done)

        yield told
