"""What others read of the replay store, and what of it a training job learns from; owns no file, writes nothing.

Of more samples than a job may have, labelled ones come first, but for an eighth. As in the store itself the fullest
class gives way, and each is thinned evenly over time (`thinning`): a job learns from what a store of that size would
have kept of them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_client.stored_task import blank, is_of
from edge_models.samples import UNLABELLED, Samples
from edge_models.thinning import evenly
from edge_protocol.errors import StoreError
from edge_protocol.task import TaskSpec

_PLACE = np.dtype([("row", np.int64), ("class", np.int64)])


@dataclass(frozen=True, eq=False, slots=True)
class Stored:
    """Samples of a store, in order of time.

    Attributes:
        names: N names.
        at_s: (N,) float64, when each was seen, seconds since 1970; of a window when it ended.
        samples: the N samples.
    """

    names: list[str]
    at_s: npt.NDArray[np.float64]
    samples: Samples


def read_stored(path: Path, spec: TaskSpec, most: int | None = None) -> Stored:
    """Read what is kept, of one moment: all of it, or at most so many as `evenly` chooses; no other raw is read.

    Raises:
        StoreError: the file cannot be read, or its samples are of another shape.
    """
    with _opened(path, spec) as store:
        places = _places(store)
        return _fetched(store, places if most is None else places[evenly(places["class"], most)], spec)


def read_named(path: Path, spec: TaskSpec, names: Sequence[str]) -> Stored:
    """Read those of these few samples that are kept.

    Raises:
        StoreError: as `read_stored`.
    """
    with _opened(path, spec) as store:
        query = "select rowid, class from samples where sample = ?"
        found = (row for name in names for row in store.execute(query, (name,)))
        return _fetched(store, np.fromiter(found, _PLACE), spec)


def labelled_parts(path: Path, spec: TaskSpec, size: int) -> Iterator[Samples]:
    """Every labelled image of one moment, `size` at a time, so that their number asks for no memory.

    Raises:
        StoreError: as `read_stored`.
    """
    with _opened(path, spec) as store:
        places = _places(store)
        places = places[places["class"] != UNLABELLED]
        for at in range(0, len(places), size):
            yield _fetched(store, places[at : at + size], spec).samples


def latest(path: Path, spec: TaskSpec, count: int) -> Samples:
    """The newest samples kept, at most so many, for another thread than the writer's; none when unreadable."""
    try:
        with _opened(path, spec) as store:
            newest = store.execute("select rowid, class from samples order by at_s desc limit ?", (count,))
            return _fetched(store, np.fromiter(newest, _PLACE), spec).samples
    except StoreError:
        return blank(0, spec)


def latest_raw(path: Path, spec: TaskSpec, count: int) -> npt.NDArray[np.generic]:
    """Raw of the same: (≤ count, *raw_shape)."""
    return latest(path, spec, count).raw


def kept_names(path: Path) -> set[str]:
    """Names of everything kept; none when it cannot be read."""
    try:
        with _opened(path, None) as store:
            return {name for (name,) in store.execute("select sample from samples")}
    except StoreError:
        return set()


@contextmanager
def _opened(path: Path, spec: TaskSpec | None) -> Iterator[sqlite3.Connection]:
    """A store as it is at one moment, whoever writes meanwhile.

    Raises:
        StoreError: it cannot be read, or what it holds is none of the task's.
    """
    try:
        store = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
        try:
            store.execute("begin")
            if spec is not None and not is_of(store, spec):
                raise ValueError(f"it holds nothing of task {spec.name!r} as it is now; a restart begins it anew")
            yield store
        finally:
            store.close()
    except (sqlite3.Error, OSError, ValueError) as error:
        raise StoreError(f"replay store {path}: {error}") from error


def _places(store: sqlite3.Connection) -> npt.NDArray[np.void]:
    """Row and class of every sample in order of time, out of the index alone."""
    return np.fromiter(store.execute("select rowid, class from samples order by at_s, rowid"), _PLACE)


def _fetched(store: sqlite3.Connection, places: npt.NDArray[np.void], spec: TaskSpec) -> Stored:
    """Read samples straight into their arrays: each is in memory once."""
    names, at_s, samples = [], np.zeros(len(places)), blank(len(places), spec)
    arrays = (samples.raw, samples.targets, samples.side, samples.scale)
    query = "select sample, at_s, raw, target, side, scale from samples where rowid = ?"
    for at, row in enumerate(places["row"].tolist()):
        name, at_s[at], *blobs = store.execute(query, (row,)).fetchone()
        names.append(name)
        for array, blob in zip(arrays, blobs, strict=True):
            if blob:
                array[at] = np.frombuffer(blob, array.dtype).reshape(array.shape[1:])
    if not spec.labels and not np.isfinite(samples.side).any():  # kept before sensors had numbers
        samples = Samples(samples.raw, samples.targets, samples.side[:, :0], samples.scale)
    return Stored(names, at_s, samples)
