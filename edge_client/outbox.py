"""Messages that must reach the server, on disk until it says that it stored them; owns ``outbox.db``, no link.

QoS 1 loses messages silently, so a message stays here, with its id, until an `Ack` names it. The
file is bounded: results make room first, oldest first, and are counted; a report is never given up for a result.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from edge_client.last_votes import VOTES_FILE, LastVotes
from edge_protocol.errors import StoreError
from edge_protocol.messages import Kind

BUDGET_BYTES = 16 << 20
FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 300.0
ASIDE_S = 3600.0
"""How long a message is left alone that the link cannot carry; a start looks again sooner."""
_SCHEMA = """
create table if not exists messages(
    id blob primary key, slot text unique, kind text not null, round integer, payload blob not null
);
create table if not exists meta(key text primary key, value integer not null);
"""
_RESULT_LAST = "order by kind = 'result', rowid"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message to send: its id, its topic's kind, its bytes."""

    message_id: bytes
    kind: Kind
    payload: bytes


class Outbox:
    """Durable messages by message id; used by one thread only.

    Args:
        path: of the database.
        budget_bytes: payload bytes kept at most.
        in_memory: keep messages in memory instead, until the process ends.

    Attributes:
        votes: beside which reports are told.

    Raises:
        StoreError: the file cannot be opened.
    """

    def __init__(self, path: Path, budget_bytes: int = BUDGET_BYTES, *, in_memory: bool = False) -> None:
        self._budget = budget_bytes
        self.votes = LastVotes(path.with_name(VOTES_FILE))
        self._retries: dict[bytes, tuple[int, float]] = {}
        self._aside: dict[bytes, float] = {}
        with _translated(path):
            if not in_memory:
                path.parent.mkdir(parents=True, exist_ok=True)
            place = ":memory:" if in_memory else path
            self._db = sqlite3.connect(place, isolation_level=None, check_same_thread=False)
        self._path = path
        try:
            with _translated(path):
                self._db.execute("pragma journal_mode = wal")
                self._db.execute("pragma synchronous = full")
                self._db.executescript(_SCHEMA)
                self._bytes = int(self._one("select coalesce(sum(length(payload)), 0) from messages"))
        except StoreError:
            self._db.close()
            raise

    def put(
        self,
        message_id: bytes,
        kind: Kind,
        payload: bytes,
        *,
        slot: str | None = None,
        number: int | None = None,
        until: tuple[str, float] | None = None,
    ) -> int:
        """Write a message down; return how many results had to make room.

        Args:
            message_id: of its header.
            kind: of its topic.
            payload: encoded.
            slot: a message in the same slot takes the place of the one before: it is newer state.
            number: the round that it answers.
            until: source that it is a result of, and the end of its interval, s since 1970.

        Raises:
            StoreError: the disk refused; the message is not kept.
        """
        with _translated(self._path):
            self._db.execute("begin immediate")
            try:
                if slot is not None:
                    self._db.execute("delete from messages where slot = ?", (slot,))
                self._db.execute(
                    "insert into messages values(?, ?, ?, ?, ?)", (message_id, slot, kind, number, payload)
                )
                if number is not None:
                    self._db.execute("insert or replace into meta values('answered', ?)", (number,))
                if until is not None:
                    self._db.execute("insert or replace into meta values(?, ?)", (f"until {until[0]}", int(until[1])))
                dropped = self._make_room()
                self._db.execute("commit")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("rollback")
                raise
            self._bytes = int(self._one("select coalesce(sum(length(payload)), 0) from messages"))
        return dropped

    def due(self, now: float, limit: int) -> list[Waiting]:
        """Messages to send at `now` (s), reports and states before results, oldest first, at most `limit`."""
        found: list[Waiting] = []
        with _translated(self._path):
            for message_id, kind in self._db.execute(f"select id, kind from messages {_RESULT_LAST}"):  # noqa: S608 - a constant
                if self._retries.get(message_id, (0, now))[1] <= now >= self._aside.get(message_id, now):
                    payload = self._one("select payload from messages where id = ?", message_id)
                    found.append(Waiting(message_id, cast("Kind", kind), cast("bytes", payload)))
                    if len(found) >= limit:
                        break
        return found

    def sent(self, message_id: bytes, now: float) -> None:
        """The link took a message at `now` (s); it is sent again when no `Ack` comes."""
        failures, _ = self._retries.get(message_id, (0, now))
        self._retries[message_id] = (failures + 1, now + min(FIRST_PAUSE_S * 2 ** min(failures, 30), LONGEST_PAUSE_S))

    def put_aside(self, message_id: bytes, now: float) -> None:
        """The link cannot carry a message: it stays on disk, and lets the others go first for `ASIDE_S`."""
        self._aside = {each: until for each, until in self._aside.items() if until > now}
        self._aside[message_id] = now + ASIDE_S

    def relink(self) -> None:
        """The link is new: everything unacknowledged is due, but for what was put aside."""
        self._retries.clear()

    def clear(self, message_id: bytes) -> tuple[bool, int | None]:
        """Forget an acknowledged message; return whether it was known, and the round that it answered.

        Raises:
            StoreError: the disk refused; it will be sent, and acknowledged, again.
        """
        self._retries.pop(message_id, None)
        with _translated(self._path):
            row = self._db.execute("select round, length(payload) from messages where id = ?", (message_id,)).fetchone()
            if row is None:
                return False, None
            self._db.execute("delete from messages where id = ?", (message_id,))
        self._bytes -= row[1]
        return True, row[0]

    def next_deadline(self) -> float | None:
        """Time at which a message is due again (s), None when nothing was sent and not acknowledged."""
        return min((at for _, at in self._retries.values()), default=None)

    @property
    def answered(self) -> int:
        """Number of the last round that was answered, 0 for none."""
        with _translated(self._path):
            return int(self._one("select coalesce(max(value), 0) from meta where key = 'answered'"))

    def told_until(self, source: str) -> float:
        """End of the last interval of a source that a result was written down of, s since 1970; 0 for none."""
        with _translated(self._path):
            query = "select coalesce(max(value), 0) from meta where key = ?"
            return float(self._one(query, f"until {source}"))

    def __len__(self) -> int:
        with _translated(self._path):
            return int(self._one("select count(*) from messages"))

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _make_room(self) -> int:
        dropped = 0
        while int(self._one("select coalesce(sum(length(payload)), 0) from messages")) > self._budget:
            row = self._db.execute("select id from messages where kind = 'result' order by rowid limit 1").fetchone()
            if row is None:
                break
            self._db.execute("delete from messages where id = ?", row)
            self._retries.pop(row[0], None)
            dropped += 1
        return dropped

    def _one(self, query: str, *values: object) -> int | bytes:
        return cast("int | bytes", self._db.execute(query, values).fetchone()[0])


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"outbox {path}: {error}; free some space or check the disk") from error
