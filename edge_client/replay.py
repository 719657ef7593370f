"""What the device has seen and may learn from: raw samples on disk under a byte budget; owns ``replay.db``.

When the budget is used up, the fullest class gives way, in it the fullest hour of the day, in it the oldest sample: a
rare class and a night survive a flood of cars at noon. A full disk costs samples, which are counted, and nothing else.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_models.samples import F4, UNLABELLED, Samples
from edge_protocol.errors import StoreError
from edge_protocol.task import TaskSpec

_ROW_BYTES = 160
"""What a row costs beside its arrays."""
_HOUR_S = 3600
_DAY_HOURS = 24
_LEAST_PAGES = 16
_SCHEMA = """
create table if not exists samples(
    sample text primary key, class integer not null, hour integer not null, at_s real not null,
    raw blob not null, target blob not null, side blob not null, scale blob not null
);
create index if not exists place on samples(class, hour, at_s);
create table if not exists commissioned(mark text primary key);
"""


@dataclass(eq=False, slots=True)
class Kept:
    """One sample to keep; made for every frame, so not frozen: that would cost the loop a microsecond.

    Attributes:
        sample: its name.
        at_s: when it was seen (s since 1970).
        raw: (*raw_shape) uint8 image or float32 window.
        target: class, -1 unlabelled; or (H,) float32 changes, NaN missing.
        side: (F,) float32; of a window (1,), its sensor's number.
        scale: (2,) float32.
    """

    sample: str
    at_s: float
    raw: npt.NDArray[np.generic]
    target: int | F4 = UNLABELLED
    side: F4 | None = None
    scale: F4 | None = None


class ReplayStore:
    """Samples on disk; used by one thread only, read by the trainer's process.

    Args:
        path: of the database; a damaged one is put aside and begun anew.
        budget_bytes: what the samples may take.
        in_memory: keep samples in memory instead, until the process ends; nobody else can read them.

    Raises:
        StoreError: the file cannot be opened.
    """

    def __init__(self, path: Path, budget_bytes: int, *, in_memory: bool = False) -> None:
        self._path, self._budget, self._place = path, budget_bytes, ":memory:" if in_memory else str(path)
        self.dropped = 0
        try:
            if not in_memory:
                path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._open()
            except sqlite3.OperationalError:  # a full disk damages nothing
                raise
            except sqlite3.DatabaseError:
                path.replace(path.with_suffix(".damaged"))
                self._open()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"replay store {path}: {error}; check the disk") from error

    def __len__(self) -> int:
        return sum(self._counts.values())

    def add(self, samples: Iterable[Kept]) -> int:
        """Keep samples, replacing those of the same name; return how many the disk refused."""
        batch = list(samples)
        try:
            with self._db:
                for kept in batch:
                    self._insert(kept)
                self._evict()
        except (sqlite3.Error, OSError):
            self.dropped += len(batch)
            with suppress(sqlite3.Error):
                self._count()
            return len(batch)
        return 0

    def commission(self, mark: str, gathered: Callable[[], Iterable[Kept]]) -> None:
        """Keep what the installer gathered, once: what came of it since, such as an operator's label, stays.

        Args:
            mark: of what it was made from; another mark is taken anew.
            gathered: makes the samples.
        """
        if self._db.execute("select 1 from commissioned where mark = ?", (mark,)).fetchone() is None and not self.add(
            gathered()
        ):
            with suppress(sqlite3.Error), self._db:
                self._db.execute("insert into commissioned values(?)", (mark,))

    def relabel(self, sample: str, target: int) -> bool:
        """Give a kept sample a class; False when it is not kept (any more) or the disk refused."""
        try:
            with self._db:
                row = self._db.execute("select class, hour from samples where sample = ?", (sample,)).fetchone()
                if row is None:
                    return False
                blob = np.int64(target).tobytes()
                self._db.execute("update samples set class = ?, target = ? where sample = ?", (target, blob, sample))
        except sqlite3.Error:
            self.dropped += 1
            return False
        self._counts[tuple(row)] -= 1
        self._counts[target, row[1]] += 1
        return True

    def has(self, sample: str) -> bool:
        """Whether a sample is kept."""
        return self._db.execute("select 1 from samples where sample = ?", (sample,)).fetchone() is not None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _open(self) -> None:
        self._db = sqlite3.connect(self._place, check_same_thread=False)
        try:
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("pragma synchronous = normal")
            page = self._db.execute("pragma page_size").fetchone()[0]
            self._db.execute(f"pragma max_page_count = {max(2 * self._budget // page, _LEAST_PAGES)}")
            self._db.executescript(_SCHEMA)
            self._count()
        except sqlite3.Error:
            self._db.close()
            raise

    def _count(self) -> None:
        rows = self._db.execute("select class, hour, count(*) from samples group by class, hour")
        self._counts: Counter[tuple[int, int]] = Counter({(c, hour): n for c, hour, n in rows})
        size = "sum(length(raw) + length(target) + length(side) + length(scale))"
        total, number = self._db.execute(f"select coalesce({size}, 0), count(*) from samples").fetchone()  # noqa: S608 - a constant
        self._bytes = total + _ROW_BYTES * number

    def _insert(self, kept: Kept) -> None:
        blobs = _blobs(kept)
        group = kept.target if isinstance(kept.target, int) else 0
        hour = int(kept.at_s // _HOUR_S) % _DAY_HOURS
        self._remove("sample = ?", kept.sample)
        row = (kept.sample, group, hour, kept.at_s, *blobs)
        self._db.execute("insert into samples values(?, ?, ?, ?, ?, ?, ?, ?)", row)
        self._counts[group, hour] += 1
        self._bytes += sum(map(len, blobs)) + _ROW_BYTES

    def _evict(self) -> None:
        while self._bytes > self._budget and len(self) > 1:
            classes: Counter[int] = Counter()
            for (group, _), count in self._counts.items():
                classes[group] += count
            fullest = max(classes, key=lambda group: classes[group])
            hour = max((h for g, h in self._counts if g == fullest), key=lambda h: self._counts[fullest, h])
            oldest = "rowid = (select rowid from samples where class = ? and hour = ? order by at_s limit 1)"
            self._remove(oldest, fullest, hour)

    def _remove(self, where: str, *values: object) -> None:
        size = "length(raw) + length(target) + length(side) + length(scale)"
        query = f"delete from samples where {where} returning class, hour, {size}"  # noqa: S608 - constants only
        for group, hour, length in self._db.execute(query, values).fetchall():
            self._counts[group, hour] -= 1
            self._bytes -= length + _ROW_BYTES


@dataclass(frozen=True, eq=False, slots=True)
class Stored:
    """Everything that a store keeps, in order of time.

    Attributes:
        names: N names.
        at_s: (N,) float64, when each was seen, seconds since 1970; of a window when it ended.
        samples: the N samples.
    """

    names: list[str]
    at_s: npt.NDArray[np.float64]
    samples: Samples


def read_stored(path: Path, spec: TaskSpec) -> Stored:
    """Read everything kept, of one moment; for another process than the one that writes.

    Raises:
        StoreError: the file cannot be read, or its samples are of another shape.
    """
    try:
        rows = _read(path, "select sample, at_s, raw, target, side, scale from samples order by at_s, rowid")
        names, at_s = [name for name, *_ in rows], np.array([at for _, at, *_ in rows], np.float64)
        return Stored(names, at_s, _samples([row for _, _, *row in rows], spec))
    except (sqlite3.Error, ValueError) as error:
        raise StoreError(f"replay store {path}: {error}") from error


def latest_raw(path: Path, spec: TaskSpec, count: int) -> npt.NDArray[np.generic]:
    """The newest samples kept, (≤ count, *raw_shape), for another thread than the writer's; none when unreadable."""
    try:
        rows = _read(path, "select raw, target, side, scale from samples order by at_s desc limit ?", count)
    except (sqlite3.Error, OSError):
        rows = []
    return _samples(rows, spec).raw


def kept_names(path: Path) -> set[str]:
    """Names of everything kept; none when it cannot be read."""
    try:
        return {name for (name,) in _read(path, "select sample from samples")}
    except (sqlite3.Error, OSError):
        return set()


def _read(path: Path, query: str, *values: object) -> list[tuple[Any, ...]]:
    db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        return db.execute(query, values).fetchall()
    finally:
        db.close()


def _samples(rows: Sequence[Sequence[bytes]], spec: TaskSpec) -> Samples:
    raw, target, side, scale = zip(*rows, strict=True) if rows else ((), (), (), ())
    dtype = np.uint8 if spec.input.shape != spec.input.raw_shape else np.float32
    width = len(spec.side) if spec.labels else max(map(len, side), default=0) // 4
    nowhere = np.full(width, 0 if spec.labels else np.nan, np.float32).tobytes()  # a window without a sensor's number
    targets = np.frombuffer(b"".join(target), np.int64 if spec.labels else np.float32)
    return Samples(
        np.frombuffer(b"".join(raw), dtype).reshape(len(rows), *spec.input.raw_shape),
        targets if spec.labels else targets.reshape(len(rows), len(spec.horizons)),
        np.frombuffer(b"".join(one or nowhere for one in side), np.float32).reshape(len(rows), width),
        np.frombuffer(b"".join(scale), np.float32).reshape(len(rows), 2),
    )


def _blobs(kept: Kept) -> tuple[bytes, bytes, bytes, bytes]:
    target = np.int64(kept.target) if isinstance(kept.target, int) else kept.target.astype(np.float32)
    side = np.zeros(0, np.float32) if kept.side is None else kept.side.astype(np.float32)
    scale = np.ones(2, np.float32) if kept.scale is None else kept.scale.astype(np.float32)
    return np.ascontiguousarray(kept.raw).tobytes(), target.tobytes(), side.tobytes(), scale.tobytes()
