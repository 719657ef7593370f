"""Pulls blobs from the broker onto the disk; owns ``blobs/``, and knows nothing of releases.

A blob is fetched into ``blobs/<sha256>/part`` and becomes ``blobs/<sha256>/data`` when its whole hash is right. Which
chunks of a part are good is told by their hashes alone, so a process killed at any byte goes on where it was.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias

from edge_client.disk import Disk, file_sha256
from edge_client.effects import Fetched, FetchFailed
from edge_protocol.blobs import BlobRef, Pull
from edge_protocol.effects import Drop, Send
from edge_protocol.errors import DigestError, StoreError
from edge_protocol.messages import Need
from edge_protocol.topics import ChunkTopic, Topics

Outcome: TypeAlias = Fetched | FetchFailed | Send | Drop
WINDOW = 16
LEAST_WINDOW = 2
TIMEOUT_S = 5.0
LONGEST_TIMEOUT_S = 60.0
VAIN_BEFORE_NEED = 2
"""Times a chunk is asked of the broker in vain before the server is asked to publish it again."""
IDLE_BEFORE_NEXT = 4
"""Requests in a row that ran out while no chunk came, after which the next blob goes first: 75 s with these pauses."""


class Subscriptions(Protocol):
    """The part of a transport that a fetcher uses."""

    def subscribe(self, filters: Iterable[str]) -> None:
        """Add filters."""
        ...

    def unsubscribe(self, filters: Iterable[str]) -> None:
        """Remove filters."""
        ...


@dataclass(slots=True)
class _Active:
    pull: Pull
    file: BinaryIO
    vain: Counter[int] = field(default_factory=Counter)
    asked: set[int] = field(default_factory=set)
    idle: int = 0


class Fetcher:
    """Fetches one blob after the other; one whose chunks do not come lets the next go first. Used by one thread only.

    Args:
        folder: ``blobs/`` of the state directory.
        topics: of the fleet.
        link: where to subscribe.
        window: chunks in flight at most; fewer on a link that is slower than `timeout_s`.
        timeout_s: seconds after which a chunk is asked for again.
        disk: how to write.
        shelf: a folder of blobs that is only read: what the board came with.
    """

    def __init__(
        self,
        folder: Path,
        topics: Topics,
        link: Subscriptions,
        *,
        window: int = WINDOW,
        timeout_s: float = TIMEOUT_S,
        disk: Disk | None = None,
        shelf: Path | None = None,
    ) -> None:
        self._disk, self._shelf = disk or Disk(), shelf
        self._folder, self._topics, self._link = folder, topics, link
        self._window, self._timeout_s = window, timeout_s
        self._queue: dict[str, BlobRef] = {}
        self._active: _Active | None = None

    @property
    def folder(self) -> Path:
        """``blobs/``."""
        return self._folder

    def path(self, sha256: str) -> Path:
        """Where a blob is, or will be."""
        own = self._own(sha256)
        if self._shelf is not None and not own.exists() and (shelved := self._shelf / sha256 / "data").exists():
            return shelved
        return own

    def fetch(self, ref: BlobRef, now: float) -> list[Outcome]:
        """Begin to fetch a blob, or say at once that it is there."""
        if ref.sha256 in self._queue:
            return []
        if file_sha256(self.path(ref.sha256)) == ref.sha256:
            return [Fetched(ref.sha256)]
        self._queue[ref.sha256] = ref
        return self.tick(now)

    def abandon(self, sha256: str) -> None:
        """Stop fetching a blob and free what was staged of it."""
        if self._queue.pop(sha256, None) is not None:
            if self._active is not None and self._active.pull.ref.sha256 == sha256:
                self._close()
            self._disk.remove_tree(self._folder / sha256)

    def chunk(self, topic: ChunkTopic, payload: bytes, now: float) -> list[Outcome]:
        """Take a chunk that came in; one that nobody asked for is ignored."""
        active = self._active
        if active is None or topic.sha256 != active.pull.ref.sha256:
            return []
        try:
            fresh = active.pull.take(topic.index, payload)
            if fresh:
                active.idle = 0
                self._write(active, topic.index, payload)
        except DigestError as error:
            return [Drop("bad-chunk", str(error))]
        except StoreError as error:
            return [*self._fail(str(error), disk=True), *self.tick(now)]
        if topic.index in active.asked:
            active.asked.discard(topic.index)
            self._link.unsubscribe([self._topics.chunk(topic.sha256, topic.index)])
        return self.tick(now) if fresh else []

    def relink(self) -> None:
        """The link was lost and is back: ask anew."""
        if self._active is not None:
            self._forget(self._active)

    def tick(self, now: float) -> list[Outcome]:
        """Ask for what is missing and due at `now` (s)."""
        outcome: list[Outcome] = []
        while self._queue:
            active = self._active
            if active is None:
                active, failed = self._open()
                outcome += failed
                if active is None:
                    continue
            if not active.pull.complete:
                return [*outcome, *self._ask(active, now)]
            outcome += self._finish(active)
        return outcome

    def next_deadline(self) -> float | None:
        """Time at which a request runs out (s)."""
        return self._active.pull.next_deadline() if self._active else None

    def put(self, sha256: str, data: bytes) -> None:
        """Keep a blob that was made here; the caller has checked its hash.

        Raises:
            StoreError: the disk refused.
        """
        self._disk.write_atomic(self._own(sha256), data)

    def drop(self, sha256: str) -> None:
        """Delete a blob that is of no use any more."""
        self._disk.remove_tree(self._folder / sha256)

    def collect(self, keep: set[str]) -> list[str]:
        """Delete every blob that is neither in `keep` nor under way; return their hashes."""
        gone = [entry.name for entry in self._folder.glob("*") if entry.name not in keep | self._queue.keys()]
        for name in gone:
            self._disk.remove_tree(self._folder / name)
        return gone

    def close(self) -> None:
        """Let go of the file; what was written stays for the next start."""
        self._close()

    def _own(self, sha256: str) -> Path:
        return self._folder / sha256 / "data"

    def _open(self) -> tuple[_Active | None, list[Outcome]]:
        ref = next(iter(self._queue.values()))
        part = self._folder / ref.sha256 / "part"
        try:
            self._disk.make_folder(part.parent)
            file = self._disk.open(part)
        except OSError as error:
            return None, self._fail(f"cannot write {part}: {error.strerror or error}", disk=True)
        pull = Pull(ref, _intact(file, ref), self._window, self._timeout_s)
        self._active = _Active(pull, file)
        return self._active, []

    def _ask(self, active: _Active, now: float) -> list[Outcome]:
        pull = active.pull
        wanted, stale = pull.ask(now)
        if stale:
            pull.window = max(pull.window // 2, min(LEAST_WINDOW, self._window))
            pull.timeout_s = min(pull.timeout_s * 2, LONGEST_TIMEOUT_S)
            self._link.unsubscribe([self._topics.chunk(pull.ref.sha256, index) for index in stale])
        active.asked |= set(wanted)
        if wanted:
            self._link.subscribe([self._topics.chunk(pull.ref.sha256, index) for index in wanted])
        active.vain.update(stale)
        lost = tuple(index for index in stale if active.vain[index] >= VAIN_BEFORE_NEED and index not in pull.have)
        active.idle += bool(stale)
        if active.idle >= IDLE_BEFORE_NEXT and len(self._queue) > 1:
            self._close()
            self._queue[pull.ref.sha256] = self._queue.pop(pull.ref.sha256)
        return [Send(Need(pull.ref.sha256, lost))] if lost else []

    def _write(self, active: _Active, index: int, payload: bytes) -> None:
        """Chunks are not fsynced one by one: after a power cut their hashes tell which are good."""
        try:
            self._disk.write(active.file, payload, index * active.pull.ref.chunk_bytes)
        except OSError as error:
            message = f"cannot store blob {active.pull.ref.sha256[:12]}: {error.strerror or error}; free some space"
            raise StoreError(message) from error

    def _finish(self, active: _Active) -> list[Outcome]:
        """Every chunk is there: check the whole, make it durable, give it its name."""
        ref = active.pull.ref
        part = self._folder / ref.sha256 / "part"
        try:
            self._disk.truncate(active.file, ref.size)
            self._disk.sync(active.file)
            if file_sha256(part) != ref.sha256:
                return self._fail(f"blob {ref.sha256[:12]} does not match its hash although its chunks do", disk=False)
            self._disk.rename(part, self._own(ref.sha256))
            self._disk.sync_folder(part.parent)
            self._disk.sync_folder(
                self._folder
            )  # an agent killed between making the folder and syncing it left that open
        except OSError as error:
            return self._fail(f"cannot store blob {ref.sha256[:12]}: {error.strerror or error}", disk=True)
        self._close()
        del self._queue[ref.sha256]
        return [Fetched(ref.sha256)]

    def _fail(self, reason: str, *, disk: bool) -> list[Outcome]:
        """Give the first blob in the queue up, and free what was staged of it."""
        sha256 = next(iter(self._queue))
        self.abandon(sha256)
        return [FetchFailed(sha256, reason, disk)]

    def _close(self) -> None:
        if self._active is not None:
            self._forget(self._active)
            self._active.file.close()
            self._active = None

    def _forget(self, active: _Active) -> None:
        if active.asked:
            sha256 = active.pull.ref.sha256
            self._link.unsubscribe([self._topics.chunk(sha256, index) for index in sorted(active.asked)])
        active.asked.clear()
        active.pull.forget()


def _intact(file: BinaryIO, ref: BlobRef) -> set[int]:
    """Chunks of a part that were written whole."""
    have = set()
    for index in range(ref.chunks):
        size = min(ref.chunk_bytes, ref.size - index * ref.chunk_bytes)
        try:
            ref.check_chunk(index, os.pread(file.fileno(), size, index * ref.chunk_bytes))
        except DigestError:
            continue
        have.add(index)
    return have
