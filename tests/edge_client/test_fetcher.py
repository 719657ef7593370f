"""Pulling blobs: loss, repeats, disorder, corruption, kills and full disks end in the same bytes, or in a reason."""

from __future__ import annotations

import random
import resource
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_client.chunk_sources import UNSUBSCRIBE_BATCH
from edge_client.effects import Fetched, FetchFailed
from edge_client.fetcher import Fetcher, Outcome
from edge_protocol.blobs import BlobRef, cut
from edge_protocol.effects import Drop
from edge_protocol.topics import ChunkTopic, Topics
from edge_protocol.transport.base import Received
from edge_protocol.transport.memory import MemoryBroker, MemoryTransport
from tests.fakes.clock import FakeClock
from tests.fakes.small_centre import FLEET

TOPICS = Topics(FLEET)
DATA = random.Random(4).randbytes(40_000)
CHUNK = 1000


@dataclass
class Rig:
    """A fetcher on a memory broker, in turns."""

    folder: Path
    broker: MemoryBroker = field(default_factory=MemoryBroker)
    window: int = 16
    said: list[Outcome] = field(default_factory=list)
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.inbox: Queue[object] = Queue()
        self.link = MemoryTransport(self.broker, self.inbox)
        self.link.start()
        self.fetcher = Fetcher(self.folder, TOPICS, self.link, window=self.window)

    def publish(self, data: bytes, chunk: int = CHUNK, *, without: frozenset[int] = frozenset()) -> BlobRef:
        """The server publishes a blob, maybe with holes."""
        ref, chunks = cut(data, chunk)
        for index, each in enumerate(chunks):
            if index not in without:
                self.broker.route(TOPICS.chunk(ref.sha256, index), each, retain=True)
        return ref

    def fetch(self, ref: BlobRef) -> None:
        """Begin."""
        self.said += self.fetcher.fetch(ref, self.clock.now)

    def turn(self, *, shuffle: random.Random | None = None, most: int = 10_000) -> None:
        """Hand over what came in, at most so many chunks."""
        came: list[Received] = []
        while len(came) < most:
            try:
                event = self.inbox.get_nowait()
            except Empty:
                break
            came += [event] if isinstance(event, Received) else []
        if shuffle:
            shuffle.shuffle(came)
        for received in came:
            topic = TOPICS.parse(received.topic)
            assert isinstance(topic, ChunkTopic)
            self.said += self.fetcher.chunk(topic, received.payload, self.clock.now)

    def finish(self, turns: int = 400, **how: Any) -> None:
        """Go on, with time passing, until something was fetched or failed."""
        for _ in range(turns):
            self.turn(**how)
            if any(isinstance(x, Fetched | FetchFailed) for x in self.said):
                return
            self.clock.advance(3)
            self.said += self.fetcher.tick(self.clock.now)
        raise AssertionError(f"never came to an end: {self.said[-5:]}")

    def all(self, kind: type[Any]) -> list[Any]:
        """Outcomes of one kind."""
        return [x for x in self.said if isinstance(x, kind)]


def test_a_blob_arrives_whole_with_a_window_of_chunks_asked_for_at_a_time(tmp_path: Path) -> None:
    """It begins with one, grows, and never exceeds the most; in the end nothing is subscribed, and no part is left."""
    rig = Rig(tmp_path / "blobs")
    ref = rig.publish(DATA)
    rig.fetch(ref)
    subscribed = [len(rig.link._filters)]
    while not rig.said:
        rig.turn(most=1)
        subscribed.append(len(rig.link._filters))
        active = rig.fetcher._active
        assert active is None or len(active.pull._asked) <= rig.window
    assert subscribed[0] == 1
    assert rig.window <= max(subscribed) < rig.window + UNSUBSCRIBE_BATCH
    assert rig.said == [Fetched(ref.sha256)]
    assert rig.fetcher.path(ref.sha256).read_bytes() == DATA
    assert not rig.link._filters
    assert [p.name for p in (tmp_path / "blobs" / ref.sha256).iterdir()] == ["data"]
    assert rig.fetcher.next_deadline() is None


def test_a_blob_that_is_there_is_not_fetched_again_and_a_damaged_one_is(tmp_path: Path) -> None:
    """Its hash decides."""
    rig = Rig(tmp_path / "blobs")
    ref = rig.publish(DATA)
    rig.fetch(ref)
    rig.finish()
    rig.fetch(ref)
    assert rig.all(Fetched) == [Fetched(ref.sha256)] * 2
    rig.fetcher.path(ref.sha256).write_bytes(DATA[:-1] + b"!")
    rig.said.clear()
    rig.fetch(ref)
    assert not rig.said
    rig.finish()
    assert rig.fetcher.path(ref.sha256).read_bytes() == DATA


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 0.3))
def test_loss_repeats_reordering_and_corruption_end_in_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, seed: int, lose: float, repeat: float, corrupt: float
) -> None:
    """Whatever the link does to chunks, the blob on the disk is the one that was published."""
    dice = random.Random(seed)
    folder = tmp_path_factory.mktemp("blobs")
    rig = Rig(folder)
    ref = rig.publish(DATA[:12_345])

    def fault(_: str, payload: bytes) -> list[bytes]:
        damaged = dice.randbytes(len(payload)) if dice.random() < corrupt else payload
        return [] if dice.random() < lose else [damaged] * (2 if dice.random() < repeat else 1)

    rig.broker.fault = fault
    rig.fetch(ref)
    rig.finish(shuffle=dice)
    assert rig.said[-1] == Fetched(ref.sha256)
    assert rig.fetcher.path(ref.sha256).read_bytes() == DATA[:12_345]
    assert {x.reason for x in rig.all(Drop)} <= {"bad-chunk"}
    shutil.rmtree(folder)


def test_a_process_killed_at_any_chunk_goes_on_where_it_was(tmp_path: Path) -> None:
    """A new fetcher on the same folder asks only for what is not written; a torn chunk is asked for again."""
    for at in (0, 1, 7, 39):
        folder = tmp_path / str(at)
        first = Rig(folder)
        ref = first.publish(DATA)
        first.fetch(ref)
        for _ in range(at):
            first.turn(most=1)
        first.fetcher._active.part.file.close()  # type: ignore[union-attr] # the kill: nothing is told goodbye
        part = folder / ref.sha256 / "part"
        if at > 1:
            torn = bytearray(part.read_bytes())
            torn[CHUNK : CHUNK + 500] = bytes(500)
            part.write_bytes(torn)
        second = Rig(folder, broker=first.broker)
        second.fetch(ref)
        assert len(second.fetcher._active.pull.have) == (at - 1 if at > 1 else at)  # type: ignore[union-attr]
        second.finish()
        assert second.fetcher.path(ref.sha256).read_bytes() == DATA
        second.fetcher.close()


def test_a_new_link_is_asked_once_by_the_renewed_subscriptions(tmp_path: Path) -> None:
    """What was under way comes once on the new link, not once for the transport and once for the fetcher."""
    rig = Rig(tmp_path / "blobs")
    ref = rig.publish(DATA)
    rig.fetch(ref)
    rig.turn(most=4)
    rig.link.cut()
    rig.inbox.queue.clear()
    rig.clock.advance(600)
    rig.link.start()
    rig.fetcher.relink()
    before = rig.link.traffic.messages_down
    had = len(rig.fetcher._active.pull.have)  # type: ignore[union-attr]
    rig.said += rig.fetcher.tick(rig.clock.now)
    rig.finish(turns=30)
    assert rig.said == [Fetched(ref.sha256)]
    assert rig.link.traffic.messages_down - before < ref.chunks - had
    assert rig.fetcher.path(ref.sha256).read_bytes() == DATA


def test_what_a_new_link_does_not_bring_is_asked_again(tmp_path: Path) -> None:
    """It was renewed and lost once more."""
    rig = Rig(tmp_path / "blobs")
    ref = rig.publish(DATA)
    rig.fetch(ref)
    rig.link.cut()
    rig.inbox.queue.clear()
    rig.link.start()
    rig.inbox.queue.clear()
    rig.fetcher.relink()
    rig.said += rig.fetcher.tick(rig.clock.now)
    rig.finish(turns=30)
    assert rig.said == [Fetched(ref.sha256)]


def test_blobs_queue_up_and_strangers_are_ignored(tmp_path: Path) -> None:
    """One after the other; asking twice is asking once; chunks of other blobs do nothing."""
    rig = Rig(tmp_path / "blobs")
    refs = [rig.publish(DATA[i * 5000 : (i + 1) * 5000]) for i in range(3)]
    for ref in [*refs, refs[0]]:
        rig.fetch(ref)
    assert rig.fetcher.chunk(ChunkTopic("0" * 64, 0), b"x", rig.clock.now) == []
    for _ in range(20):
        rig.turn()
    assert rig.said == [Fetched(ref.sha256) for ref in refs]


def test_an_abandoned_blob_leaves_nothing_behind(tmp_path: Path) -> None:
    """No file, no subscription; the next blob in the queue goes on."""
    rig = Rig(tmp_path / "blobs")
    first, second = rig.publish(DATA), rig.publish(DATA[:3000])
    rig.fetch(first)
    rig.fetch(second)
    rig.turn(most=3)
    rig.fetcher.abandon(first.sha256)
    rig.fetcher.abandon(first.sha256)
    assert not (tmp_path / "blobs" / first.sha256).exists()
    rig.said += rig.fetcher.tick(rig.clock.now)
    rig.finish()
    assert rig.said == [Fetched(second.sha256)]
    assert not rig.link._filters


def test_a_reference_whose_whole_hash_lies_is_given_up(tmp_path: Path) -> None:
    """Each chunk is right and the whole is not: nothing is kept."""
    rig = Rig(tmp_path / "blobs")
    ref, chunks = cut(DATA, CHUNK)
    lie = BlobRef("0" * 64, ref.size, ref.chunk_bytes, ref.digests)
    for index, chunk in enumerate(chunks):
        rig.broker.route(TOPICS.chunk(lie.sha256, index), chunk, retain=True)
    rig.fetch(lie)
    rig.finish()
    (failed,) = rig.said
    assert isinstance(failed, FetchFailed)
    assert not failed.disk
    assert "although its chunks do" in failed.reason
    assert not (tmp_path / "blobs" / lie.sha256).exists()


def test_a_full_disk_is_said_and_staging_is_freed(tmp_path: Path) -> None:
    """The file may not grow any more: the blob is given up with the disk's reason, its part is gone."""
    rig = Rig(tmp_path / "blobs")
    ref = rig.publish(DATA)
    rig.fetch(ref)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        rig.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [failed.disk for failed in rig.all(FetchFailed)] == [True]
    assert not (tmp_path / "blobs" / ref.sha256).exists()
    assert not rig.link._filters


def test_a_folder_that_cannot_be_made_is_a_reason(tmp_path: Path) -> None:
    """A file where the folder should be."""
    (tmp_path / "blobs").write_text("in the way")
    rig = Rig(tmp_path / "blobs")
    rig.fetch(rig.publish(DATA))
    assert [failed.disk for failed in rig.all(FetchFailed)] == [True]


def test_what_nothing_names_is_collected_and_what_is_under_way_is_not(tmp_path: Path) -> None:
    """Superseded blobs make room."""
    rig = Rig(tmp_path / "blobs")
    kept, gone, coming = rig.publish(DATA), rig.publish(DATA[:5000]), rig.publish(DATA[:7000])
    for ref in (kept, gone):
        rig.fetch(ref)
    for _ in range(20):
        rig.turn()
    rig.fetch(coming)
    assert rig.fetcher.collect({kept.sha256}) == [gone.sha256]
    rig.said.clear()
    rig.finish()
    assert rig.said == [Fetched(coming.sha256)]
    assert rig.fetcher.path(kept.sha256).exists()
