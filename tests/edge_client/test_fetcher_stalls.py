"""Chunks that do not come: the server is asked for them, and a blob that never comes does not hold up the next.

A round call is not signed, and names what it likes.
"""

from __future__ import annotations

from pathlib import Path

from edge_client.effects import Fetched
from edge_client.fetcher import NEED_AHEAD
from edge_protocol.blobs import cut
from edge_protocol.effects import Send
from edge_protocol.messages import Need
from edge_protocol.topics import ChunkTopic
from tests.edge_client.test_fetcher import CHUNK, DATA, TOPICS, Rig


def test_a_blob_that_never_comes_lets_the_next_go_first(tmp_path: Path) -> None:
    """The blob behind it arrives; the stalled one keeps what it has, and completes when it is published after all."""
    rig = Rig(tmp_path / "blobs")
    late = DATA[::-1]
    stalled, _ = cut(late, CHUNK)
    rig.publish(late, without=frozenset(range(5, stalled.chunks)))
    behind = rig.publish(DATA)
    rig.fetch(stalled)
    rig.fetch(behind)
    rig.finish()
    assert rig.all(Fetched) == [Fetched(behind.sha256)]
    rig.said.clear()
    rig.publish(late)
    rig.finish()
    assert rig.all(Fetched) == [Fetched(stalled.sha256)]
    assert rig.fetcher.path(stalled.sha256).read_bytes() == late
    rig.fetcher.close()


def test_chunks_that_the_broker_lost_are_asked_of_the_server(tmp_path: Path) -> None:
    """After asking the broker twice in vain, Need names the lost chunks first; republished, they complete it."""
    rig = Rig(tmp_path / "blobs")
    ref = rig.publish(DATA, without=frozenset({3, 17}))
    rig.fetch(ref)
    for _ in range(60):
        rig.turn()
        rig.clock.advance(3)
        rig.said += rig.fetcher.tick(rig.clock.now)
    needs = [x.body for x in rig.all(Send)]
    assert needs
    assert needs[0].indices[0] == 3
    assert {3, 17} <= {index for need in needs for index in need.indices}
    assert all(isinstance(need, Need) and need.sha256 == ref.sha256 for need in needs)
    rig.publish(DATA)
    rig.finish()
    assert rig.fetcher.path(ref.sha256).read_bytes() == DATA


def test_a_broker_that_lost_every_chunk_is_filled_by_need_alone_at_a_good_pace(tmp_path: Path) -> None:
    """A server that only answers needs: all 40 chunks in less than 90 s, pauses do not pile up."""
    rig = Rig(tmp_path / "blobs")
    ref, chunks = cut(DATA, CHUNK)
    begun = rig.clock.now
    rig.fetch(ref)
    while Fetched(ref.sha256) not in rig.said:
        rig.clock.advance(0.5)
        rig.turn()
        heard = len(rig.said)
        rig.said += rig.fetcher.tick(rig.clock.now)
        for index in [index for said in rig.said[heard:] if isinstance(said, Send) for index in said.body.indices]:  # type: ignore[union-attr]
            rig.broker.route(TOPICS.chunk(ref.sha256, index), chunks[index], retain=True)
        assert rig.clock.now - begun < 90


def test_a_broker_without_its_store_is_not_flooded(tmp_path: Path) -> None:
    """When nothing comes, the window shrinks and the pauses grow."""
    rig = Rig(tmp_path / "blobs")
    ref, _ = cut(DATA, CHUNK)
    rig.fetch(ref)
    for _ in range(100):
        rig.clock.advance(3)
        rig.said += rig.fetcher.tick(rig.clock.now)
    needs = [x.body for x in rig.all(Send)]
    assert 2 <= len(needs) <= 12
    assert max(len(need.indices) for need in needs) <= NEED_AHEAD
    rig.fetcher.close()


def test_how_long_nothing_has_come_is_told_whichever_blob_is_asked_for(tmp_path: Path) -> None:
    """A chunk that counts begins it anew, one that is not right does not; what is done tells none."""
    rig = Rig(tmp_path / "blobs")
    refs = [rig.publish(data, without=frozenset(range(2, 40))) for data in (DATA, DATA[::-1])]
    for ref in refs:
        rig.fetch(ref)
    rig.turn()
    for _ in range(100):
        rig.clock.advance(10)
        rig.turn()
        rig.said += rig.fetcher.tick(rig.clock.now)
    idle_s = rig.fetcher.counts(rig.clock.now)["fetch_idle_s"]
    assert 600 < idle_s <= 1000, "the second blob had its turn, and its chunks, within the first minutes"
    spoilt = ChunkTopic(refs[0].sha256, 5)
    rig.said += rig.fetcher.chunk(spoilt, b"wrong", rig.clock.now)
    assert rig.fetcher.counts(rig.clock.now)["fetch_idle_s"] == idle_s
    for data in (DATA, DATA[::-1]):
        rig.publish(data)
    rig.turn(most=1)
    assert rig.fetcher.counts(rig.clock.now)["fetch_idle_s"] == 0
    while len(rig.all(Fetched)) < len(refs):
        rig.clock.advance(3)
        rig.turn()
        rig.said += rig.fetcher.tick(rig.clock.now)
    assert not rig.fetcher.counts(rig.clock.now)
