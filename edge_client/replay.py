"""What the device has seen and may learn from: raw samples on disk under a byte budget; owns ``replay.db``.

When the budget is used up, the fullest class gives way, in it the fullest hour of the day, in it the oldest sample: a
rare class and a night survive a flood of cars at noon. What was seen at no known time, such as a commissioning pack's
images, has an hour of its own. A full disk costs samples, which are counted, and nothing else.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_client.stored_task import beside, change_places, is_of, name_in, name_of, note
from edge_models.samples import F4, UNLABELLED
from edge_protocol.errors import StoreError
from edge_protocol.task import TaskSpec

LOG = logging.getLogger(__name__)

_ROW_BYTES = 160
"""What a row costs beside its arrays."""
_HOUR_S = 3600
_DAY_HOURS = 24
_NO_CLOCK_S = 365 * _DAY_HOURS * _HOUR_S
"""Before 1971 nobody kept samples: a commissioning pack's images, and a board without a clock, know no hour."""
PACKED = "commissioning-"
"""How the name of a commissioning pack's sample begins."""
_SLICE = 256
"""Samples that are written at once."""
_LEAST_PAGES = 16
_SCHEMA = """
create table if not exists samples(
    sample text primary key, class integer not null, hour integer not null, at_s real not null,
    raw blob not null, target blob not null, side blob not null, scale blob not null
);
create index if not exists place on samples(class, hour, at_s);
create table if not exists commissioned(mark text primary key);
create table if not exists begun(mark text primary key, taken integer not null);
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

    Attributes:
        dropped: samples and labels that the disk refused, since the start.

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

    def belong_to(self, spec: TaskSpec) -> None:
        """Hold samples of this task alone; those of another, or from before its labels changed, wait until it is back.

        They are deleted where the disk has no room for two stores: the device goes first.

        Raises:
            StoreError: the disk refuses, or somebody reads the file just now.
        """
        try:
            own = beside(self._path, name_of(spec))  # an empty store beside it: this was cut short the last time
            if not is_of(self._db, spec) or (not len(self) and own.exists()):
                self._change_places(own, spec)
            with suppress(sqlite3.Error):  # on a full disk it is noted at the next start
                note(self._db, spec)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"replay store {self._path}: {error}; check the disk") from error

    def __len__(self) -> int:
        return sum(self._counts.values())

    def add(self, samples: Iterable[Kept], mark: str = "") -> int:
        """Keep samples in slices, replacing those of the same name; return how many the disk refused.

        One without a label replaces none that has one: the same picture seen again takes nobody's work away.

        Args:
            samples: to keep; what follows a slice that was refused is refused too.
            mark: of the pack that they come from.
        """
        refused, rest = 0, iter(samples)
        while batch := list(islice(rest, _SLICE)):
            if refused or not self._take(batch, mark):
                refused += len(batch)
        self.dropped += refused
        return refused

    def commission(self, mark: str, gathered: Callable[[], Iterable[Kept]]) -> None:
        """Keep what the installer gathered, once: what came of it since, such as an operator's label, stays.

        What the disk refuses is logged and counted, and comes at the next start.

        Args:
            mark: of what it was made from; another mark is taken anew, and what came of the one before is given up.
            gathered: makes the samples, in the same order each time.
        """
        if self._db.execute("select 1 from commissioned where mark = ?", (mark,)).fetchone() is not None:
            return
        begun = self._db.execute("select taken from begun where mark = ?", (mark,)).fetchone() or (0,)
        refused = self.add(islice(gathered(), begun[0], None), mark)
        if refused:
            LOG.warning("commissioning: the disk refused %d samples; make room for them and restart", refused)
            return
        with suppress(sqlite3.Error), self._whole():
            given = self._db.execute("delete from begun where mark = ? returning taken", (mark,)).fetchall()
            if not given:
                self._give_up_packs()
            self._db.execute("insert into commissioned values(?)", (mark,))
            if given and given[0][0] > len(self):
                LOG.warning("commissioning: %d of %d samples fit into replay.budget_bytes", len(self), given[0][0])

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

    def _change_places(self, own: Path, spec: TaskSpec) -> None:
        aside = beside(self._path, name_in(self._db)) if len(self) else None
        self._db.execute("pragma journal_mode = delete")  # brings the journal into the file
        self._db.close()
        others = change_places(self._path, aside, own, 2 * self._budget)
        self._open()
        told = "replay store: begun anew for task %r as it is now, with %d samples; those of other labels or inputs: %s"
        LOG.warning(told, spec.name, len(self), others)

    def _count(self) -> None:
        rows = self._db.execute("select class, hour, count(*) from samples group by class, hour")
        self._counts: Counter[tuple[int, int]] = Counter({(c, hour): n for c, hour, n in rows})
        size = "sum(length(raw) + length(target) + length(side) + length(scale))"
        total, number = self._db.execute(f"select coalesce({size}, 0), count(*) from samples").fetchone()  # noqa: S608 - a constant
        self._bytes = total + _ROW_BYTES * number

    def _take(self, batch: list[Kept], mark: str) -> bool:
        """Write a slice as a whole, and how far its pack has come; False when the disk refused."""
        try:
            with self._whole():
                if mark and self._db.execute("select 1 from begun where mark = ?", (mark,)).fetchone() is None:
                    self._give_up_packs()
                for kept in batch:
                    self._insert(kept)
                    self._evict()
                if mark:
                    more = "on conflict(mark) do update set taken = taken + excluded.taken"
                    self._db.execute(f"insert into begun values(?, ?) {more}", (mark, len(batch)))
        except (sqlite3.Error, OSError):
            return False
        return True

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """All that is done within, or nothing, in the file as in the counts."""
        counts, size = self._counts.copy(), self._bytes
        try:
            with self._db:
                yield
        except BaseException:
            self._counts, self._bytes = counts, size
            raise

    def _give_up_packs(self) -> None:
        """Let what came of other packs go; each may come again."""
        self._remove("sample glob ?", PACKED + "*")
        self._db.execute("delete from commissioned")
        self._db.execute("delete from begun")

    def _insert(self, kept: Kept) -> None:
        group = kept.target if isinstance(kept.target, int) else 0
        if group == UNLABELLED and self._labelled(kept.sample):
            return
        blobs = _blobs(kept)
        hour = int(kept.at_s // _HOUR_S) % _DAY_HOURS if kept.at_s >= _NO_CLOCK_S else _DAY_HOURS
        self._remove("sample = ?", kept.sample)
        row = (kept.sample, group, hour, kept.at_s, *blobs)
        self._db.execute("insert into samples values(?, ?, ?, ?, ?, ?, ?, ?)", row)
        self._counts[group, hour] += 1
        self._bytes += sum(map(len, blobs)) + _ROW_BYTES

    def _labelled(self, sample: str) -> bool:
        query = "select 1 from samples where sample = ? and class != ?"
        return self._db.execute(query, (sample, UNLABELLED)).fetchone() is not None

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


def _blobs(kept: Kept) -> tuple[bytes, bytes, bytes, bytes]:
    target = np.int64(kept.target) if isinstance(kept.target, int) else kept.target.astype(np.float32)
    side = np.zeros(0, np.float32) if kept.side is None else kept.side.astype(np.float32)
    scale = np.ones(2, np.float32) if kept.scale is None else kept.scale.astype(np.float32)
    return np.ascontiguousarray(kept.raw).tobytes(), target.tobytes(), side.tobytes(), scale.tobytes()
