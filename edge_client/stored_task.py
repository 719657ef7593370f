"""Which task a replay store's samples are of, kept in its file: a class is a number, and another task's means another.

Stores from before this was kept are taken for the task's own as long as their samples have its sizes and classes.
"""

from __future__ import annotations

import sqlite3
from hashlib import sha256
from pathlib import Path
from shutil import disk_usage

import numpy as np

from edge_models.samples import UNLABELLED, Samples
from edge_protocol.task import TaskSpec


def is_of(store: sqlite3.Connection, spec: TaskSpec) -> bool:
    """Whether what a store holds means the same to this task.

    Raises:
        sqlite3.Error: the store cannot be read.
    """
    if noted := _noted(store):
        return noted == _meaning(spec)
    like = blank(1, spec)
    sizes = (like.raw.nbytes, like.targets.nbytes, like.side.nbytes, max(len(spec.labels), 1))
    other = "length(raw) != ? or length(target) != ? or length(side) not in (0, ?) or class >= ?"
    query = f"select 1 from samples where {other} limit 1"  # noqa: S608 - a constant
    return store.execute(query, sizes).fetchone() is None


def note(store: sqlite3.Connection, spec: TaskSpec) -> None:
    """Note the task of a store that `is_of` it, once.

    Raises:
        sqlite3.Error: the disk refuses.
    """
    if not _noted(store):
        with store:
            store.execute("create table if not exists task(meaning text not null)")
            store.execute("insert into task values(?)", (_meaning(spec),))


def name_of(spec: TaskSpec) -> str:
    """8 hex digits that name a task as far as its samples are concerned."""
    return _name(_meaning(spec))


def name_in(store: sqlite3.Connection) -> str:
    """The same of the task that was noted.

    Raises:
        sqlite3.Error: the store cannot be read.
    """
    return _name(_noted(store))


def beside(path: Path, name: str) -> Path:
    """Where the store of another task waits."""
    return path.with_stem(f"{path.stem}-{name}")


def change_places(path: Path, aside: Path | None, own: Path, room: int) -> str:
    """Move a closed store out of the way, and the one that waited into its place.

    Args:
        path: of the store that was open.
        aside: where it is to wait; None: it is empty, and deleted.
        own: of the one that waited, where there is one.
        room: bytes that must stay free, or none waits.

    Returns:
        Where it is now, for the log.

    Raises:
        OSError: the disk refuses.
    """
    if aside is not None:
        path.replace(aside)
    if own.exists():
        own.replace(path)
    elif aside is None:
        path.unlink()
    if aside is None:
        return "none"
    if disk_usage(path.parent).free < room:
        aside.unlink()
        return "deleted for want of room"
    return f"in {aside.name}"


def blank(count: int, spec: TaskSpec) -> Samples:
    """Room for samples; a side input that one does not bring stays 0, as in serving, a sensor's number unknown."""
    image = spec.input.shape != spec.input.raw_shape
    return Samples(
        np.zeros((count, *spec.input.raw_shape), np.uint8 if image else np.float32),
        np.full(count, UNLABELLED, np.int64) if spec.labels else np.zeros((count, len(spec.horizons)), np.float32),
        np.zeros((count, len(spec.side)), np.float32) if spec.labels else np.full((count, 1), np.nan, np.float32),
        np.ones((count, 2), np.float32),
    )


def _name(meaning: str) -> str:
    return sha256(meaning.encode()).hexdigest()[:8]


def _meaning(spec: TaskSpec) -> str:
    return " ".join((spec.name, spec.label_space, *spec.side))


def _noted(store: sqlite3.Connection) -> str:
    """What was noted, "" in a store from before."""
    if store.execute("select 1 from sqlite_master where name = 'task'").fetchone() is None:
        return ""
    row = store.execute("select meaning from task").fetchone()
    return str(row[0]) if row else ""
