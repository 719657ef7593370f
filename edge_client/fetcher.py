"""Pulls blobs, from the broker or from an HTTP mirror of the same bytes, onto the disk; knows nothing of releases.

The chunks of a blob come from one source at a time, as the policy allows; each is checked against its hash before it
is written, so it does not matter where it came from, how often, or in which order.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from edge_client.blob_files import BlobFiles, Part
from edge_client.chunk_sources import ChunkSources, Subscriptions
from edge_client.disk import Disk
from edge_client.effects import Fetched, FetchFailed, FetchHeld
from edge_client.fetch_policy import Allowance, FetchConfig
from edge_client.pace import MOST, TIMEOUT_S, Pace
from edge_client.surroundings import Look, Lookout
from edge_protocol.blobs import BlobRef, Pull
from edge_protocol.effects import Drop, Send
from edge_protocol.errors import DigestError, StoreError
from edge_protocol.messages import Need
from edge_protocol.topics import ChunkTopic, Topics

if TYPE_CHECKING:
    from edge_client.mirror import Mirror

Outcome: TypeAlias = Fetched | FetchFailed | FetchHeld | Send | Drop
VAIN_BEFORE_NEED = 2
"""Times a chunk is asked of the broker in vain before the server is asked to publish it again."""
NEED_AHEAD = 32
"""Missing chunks that the server is asked for in one go, when nothing comes of what is asked of the broker."""
IDLE_BEFORE_NEXT = 4
"""Requests in a row that ran out while no chunk came, after which the next blob goes first: 75 s with these pauses."""


@dataclass(slots=True)
class _Active:
    pull: Pull
    part: Part
    vain: Counter[int] = field(default_factory=Counter)
    idle: int = 0


class Fetcher:
    """Fetches one blob after the other; one whose chunks do not come lets the next go first. Used by one thread only.

    Args:
        folder: ``blobs/`` of the state directory.
        topics: of the fleet.
        link: where to subscribe.
        window: chunks in flight at most; fewer on a link that they fill.
        timeout_s: seconds after which a chunk is asked for again, at least.
        disk: how to write.
        shelf: a folder of blobs that is only read: what the board came with.
        mirror: what is asked before the broker; its chunks come as the broker's do.
        policy: when to fetch, and how fast.
        look: finds out what the policy asks for.
        device: its name.
    """

    def __init__(
        self,
        folder: Path,
        topics: Topics,
        link: Subscriptions,
        *,
        window: int = MOST,
        timeout_s: float = TIMEOUT_S,
        disk: Disk | None = None,
        shelf: Path | None = None,
        mirror: Mirror | None = None,
        policy: FetchConfig | None = None,
        look: Look | None = None,
        device: str = "",
    ) -> None:
        self._files = BlobFiles(folder, disk, shelf)
        self._sources = ChunkSources(topics, link, mirror, Pace(window, timeout_s), device)
        policy = policy or FetchConfig()
        self._allowance, self._look, self._held = Allowance(policy), look or Lookout(policy, folder.parent), ""
        self._queue: dict[str, BlobRef] = {}
        self._active: _Active | None = None
        self._renewed, self._moved_s = False, 0.0

    @property
    def folder(self) -> Path:
        """``blobs/``."""
        return self._files.folder

    def path(self, sha256: str) -> Path:
        """Where a blob is, or will be."""
        return self._files.path(sha256)

    def counts(self, now: float) -> dict[str, int]:
        """What there is to say of fetching at `now` (s): of the blob under way, of bytes by HTTP.

        A blob's bytes, those to come, whether it is held, and whole seconds since anything came of any blob.
        """
        found = {"bytes_mirror": self._sources.bytes_mirror} if self._sources.bytes_mirror else {}
        if self._active is not None:
            pull = self._active.pull
            left = min((pull.ref.chunks - len(pull.have)) * pull.ref.chunk_bytes, pull.ref.size)
            found |= {"fetch_bytes": pull.ref.size, "fetch_bytes_left": left, "fetch_idle_s": int(now - self._moved_s)}
            found |= {"fetch_held": 1} if self._held else {}
        return found

    def fetch(self, ref: BlobRef, now: float) -> list[Outcome]:
        """Begin to fetch a blob, or say at once that it is there."""
        if ref.sha256 in self._queue:
            return []
        if self._files.holds(ref.sha256):
            return [Fetched(ref.sha256)]
        self._moved_s = self._moved_s if self._queue else now
        self._queue[ref.sha256] = ref
        self._held = ""  # whoever asks hears why it waits
        return self.tick(now)

    def abandon(self, sha256: str) -> None:
        """Stop fetching a blob and free what was staged of it."""
        if self._queue.pop(sha256, None) is not None:
            if self._active is not None and self._active.pull.ref.sha256 == sha256:
                self._close()
            self._files.drop(sha256)

    def chunk(self, topic: ChunkTopic, payload: bytes, now: float) -> list[Outcome]:
        """Take a chunk that came in; one that nobody asked for is ignored."""
        active = self._active
        if active is None or topic.sha256 != active.pull.ref.sha256:
            return []
        pull, waited_s = active.pull, active.pull.waited_s(topic.index, now)
        try:
            fresh = pull.take(topic.index, payload)
            if fresh:
                active.idle, self._moved_s = 0, now
                self._files.write(active.part, topic.index, payload)
        except DigestError as error:
            return [Drop("bad-chunk", str(error))]
        except StoreError as error:
            return [*self._fail(str(error), disk=True), *self.tick(now)]
        if not fresh:
            self._sources.had(pull.ref, topic.index)
            return []
        self._sources.came(pull.ref, topic.index, waited_s, now)
        return self.tick(now)

    def relink(self) -> None:
        """The link was lost and is back: what is under way is waited for from now on."""
        self._sources.relink()
        self._renewed = True

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
        """Time at which a request runs out, or the policy allows the next (s)."""
        if self._active is None or not self._sources.usable:
            return None
        times = self._active.pull.next_deadline(), self._sources.next_deadline(), self._allowance.next_deadline()
        return min((at for at in times if at is not None), default=None)

    def put(self, sha256: str, data: bytes) -> None:
        """Keep a blob that was made here; the caller has checked its hash.

        Raises:
            StoreError: the disk refused.
        """
        self._files.put(sha256, data)

    def drop(self, sha256: str) -> None:
        """Delete a blob that is of no use any more."""
        self._files.drop(sha256)

    def collect(self, keep: set[str]) -> list[str]:
        """Delete every blob that is neither in `keep` nor under way; return their hashes."""
        return self._files.collect(keep | self._queue.keys())

    def close(self) -> None:
        """Let go of the file; what was written stays for the next start."""
        self._close()
        self._sources.close()
        self._look.close()

    def _open(self) -> tuple[_Active | None, list[Outcome]]:
        ref = next(iter(self._queue.values()))
        try:
            part = self._files.open(ref)
        except StoreError as error:
            return None, self._fail(str(error), disk=True)
        self._active = _Active(Pull(ref, part.have), part)
        return self._active, []

    def _ask(self, active: _Active, now: float) -> list[Outcome]:
        pull, sources, outcome = active.pull, self._sources, list[Outcome]()
        if self._renewed:
            self._renewed = False
            pull.renew(now)
        if failure := sources.failure(now):
            pull.forget()
            outcome.append(Drop("mirror-failed", failure))
        most = self._allowance.chunks(pull.ref.chunk_bytes, self._look(now), now)
        if self._allowance.reason != self._held:
            self._held = self._allowance.reason
            outcome.append(FetchHeld(self._held and f"waits: {self._held}"))
        if most == 0 or not sources.usable:
            sources.settle()
            return outcome
        pull.window, pull.timeout_s = sources.window, sources.timeout_s
        wanted, stale = pull.ask(now, most)
        if not wanted:
            return outcome
        self._allowance.spend(len(wanted) * pull.ref.chunk_bytes)
        if stale:
            sources.ask_again(pull.ref, stale, now)
        if len(wanted) > len(stale):
            sources.ask(pull.ref, wanted[len(stale) :], now)
        return [*outcome, *self._miss(active, stale)]

    def _miss(self, active: _Active, stale: list[int]) -> list[Outcome]:
        """Have the server publish again what the broker was asked for in vain; let the next blob go first."""
        pull = active.pull
        active.vain.update(stale)
        lost = tuple(index for index in stale if active.vain[index] >= VAIN_BEFORE_NEED and index not in pull.have)
        active.idle += bool(stale)
        if active.idle >= IDLE_BEFORE_NEXT and len(self._queue) > 1:
            self._close()
            self._queue[pull.ref.sha256] = self._queue.pop(pull.ref.sha256)
        if lost and active.idle >= VAIN_BEFORE_NEED:
            lost = tuple(sorted({*lost, *pull.missing()[:NEED_AHEAD]}))
        return [Send(Need(pull.ref.sha256, lost))] if lost else []

    def _finish(self, active: _Active) -> list[Outcome]:
        """Every chunk is there."""
        ref = active.pull.ref
        try:
            self._files.finish(active.part)
        except (DigestError, StoreError) as error:
            return self._fail(str(error), disk=isinstance(error, StoreError))
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
            self._sources.forget()
            self._active.part.file.close()
            self._active = None
