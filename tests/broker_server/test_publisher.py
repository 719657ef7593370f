"""What the broker should keep: published in order, looked for on each connection, cleared."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker_server.publisher import BURST, PROBE_S, Publisher
from edge_protocol.transport.in_flight import FORGET_S
from tests.broker_server.publisher_scene import TASK, TOPICS, Scene, Slow


def test_chunks_come_before_the_message_that_names_them(tmp_path: Path) -> None:
    """Until the last chunk is out, the manifest is not; a round call does not wait."""
    scene = Scene(tmp_path)
    ref = scene.blob(b"a", 5)
    scene.publisher.hold(TASK, "release/1", (ref,))
    scene.publisher.keep("manifest", b"m")
    scene.publisher.announce("round", b"r")
    scene.transport.room = 6
    scene.settle()
    assert (scene.chunks(ref), set(scene.broker.retained) & {"manifest", "round"}) == ([0, 1, 2, 3, 4], {"round"})
    scene.transport.room = 1
    scene.settle()
    assert scene.broker.retained["manifest"] == b"m"
    assert scene.publisher.idle


def test_one_call_publishes_a_bounded_number(tmp_path: Path) -> None:
    """A large blob takes several calls, so that the pump is never held up."""
    scene = Scene(tmp_path)
    ref = scene.blob(b"a", BURST + 10)
    scene.publisher.hold(TASK, "release/1", (ref,))
    assert [scene.publisher.pump(0.0) for _ in range(3)] == [BURST, 10, 0]
    assert len(scene.chunks(ref)) == BURST + 10


def test_a_broker_that_has_everything_is_not_sent_chunks_again(tmp_path: Path) -> None:
    """After a reconnection two chunks of each blob are looked for; found, nothing but the small topics is sent."""
    scene = Scene(tmp_path)
    scene.publisher.hold(TASK, "release/1", (scene.blob(b"a", 9),))
    scene.publisher.keep("manifest", b"m")
    scene.settle()
    before = scene.transport.traffic.messages_up
    scene.publisher.connected(10.0)
    scene.settle(10.0)
    assert scene.transport.traffic.messages_up == before + 1
    assert scene.publisher.idle
    assert scene.publisher.next_deadline() is None


def test_a_broker_that_lost_its_store_is_filled_again(tmp_path: Path) -> None:
    """What does not come within the time counts as lost and is published whole."""
    scene = Scene(tmp_path)
    ref, kept = scene.blob(b"a", 4), scene.blob(b"b", 4)
    scene.publisher.hold(TASK, "release/1", (ref, kept))
    scene.publisher.keep("manifest", b"m")
    scene.settle()
    lost = [TOPICS.chunk(ref.sha256, i) for i in range(4)]
    for topic in [*lost, "manifest"]:
        del scene.broker.retained[topic]
    scene.publisher.connected(10.0)
    scene.settle(10.0)
    assert (scene.chunks(ref), scene.broker.retained["manifest"]) == ([], b"m")
    assert scene.publisher.next_deadline() == 10.0 + PROBE_S
    before = scene.transport.traffic.messages_up
    scene.settle(10.0 + PROBE_S)
    assert scene.chunks(ref) == [0, 1, 2, 3]
    assert scene.transport.traffic.messages_up == before + 4


def test_a_broker_lost_while_chunks_still_wait_is_filled_with_those_it_had_too(tmp_path: Path) -> None:
    """What is looked for is among the chunks that went out, wherever the queue stood when the link was lost."""
    scene = Scene(tmp_path)
    scene.transport.room = 4
    ref = scene.blob(b"a", 10)
    scene.publisher.hold(TASK, "release/1", (ref,))
    scene.settle()
    assert scene.chunks(ref) == [0, 1, 2, 3]
    scene.transport.cut()
    scene.broker.lose_store()
    scene.transport.room = 10**9
    scene.transport.start()
    scene.publisher.connected(1.0)
    scene.settle(1.0)
    assert scene.chunks(ref) == [4, 5, 6, 7, 8, 9]
    scene.settle(1.0 + PROBE_S)
    assert scene.chunks(ref) == list(range(10))


def test_what_was_held_without_a_link_goes_out_with_the_first_one(tmp_path: Path) -> None:
    """A server that starts before its broker publishes once it is there."""
    scene = Scene(tmp_path, connected=False)
    ref = scene.blob(b"a")
    scene.publisher.hold(TASK, "proxy", (ref,))
    scene.settle()
    scene.transport.start()
    scene.publisher.connected(0.0)
    scene.settle(PROBE_S)
    assert scene.chunks(ref) == [0, 1, 2]


def test_chunks_of_a_name_given_up_are_cleared_unless_another_holds_them(tmp_path: Path) -> None:
    """A template that two releases share stays when the older one goes."""
    scene = Scene(tmp_path)
    template, old, new = scene.blob(b"t"), scene.blob(b"a"), scene.blob(b"b")
    scene.publisher.hold(TASK, "release/1", (template, old))
    scene.publisher.hold(TASK, "release/2", (template, new))
    scene.settle()
    scene.publisher.release(TASK, "release/1")
    scene.settle()
    assert (len(scene.chunks(template)), scene.chunks(old), len(scene.chunks(new))) == (3, [], 3)
    scene.publisher.clear(new)
    scene.publisher.hold(TASK, "release/2", (template,))
    scene.settle()
    assert scene.chunks(new) == []


def test_a_blob_held_again_before_it_was_cleared_stays(tmp_path: Path) -> None:
    """Clearing that still waits is forgotten when the blob is wanted again, even without a link."""
    scene = Scene(tmp_path)
    ref = scene.blob(b"a")
    scene.publisher.hold(TASK, "release/1", (ref,))
    scene.settle()
    scene.publisher.release(TASK, "release/1")
    scene.transport.cut()
    scene.publisher.hold(TASK, "release/3", (ref,))
    scene.transport.start()
    scene.publisher.connected(0.0)
    scene.settle(PROBE_S)
    assert scene.chunks(ref) == [0, 1, 2]


def test_a_blob_that_is_gone_from_disk_does_not_stop_the_rest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The error is logged, and what comes after goes out."""
    scene = Scene(tmp_path)
    ref = scene.blob(b"a")
    (tmp_path / ref.sha256).unlink()
    scene.publisher.hold(TASK, "release/1", (ref,))
    scene.publisher.keep("manifest", b"m")
    scene.settle()
    assert (scene.chunks(ref), scene.broker.retained["manifest"]) == ([], b"m")
    assert ref.sha256[:12] in caplog.text


def test_a_link_that_refuses_loses_nothing(tmp_path: Path) -> None:
    """A message that was not taken waits for the next time."""

    class Refusing(Slow):
        refuse = True

        def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> bool:
            return not self.refuse and super().publish(topic, payload, retain=retain)

    scene = Scene(tmp_path, connected=False)
    scene.transport = link = Refusing(scene.broker, scene.inbox)
    scene.publisher = Publisher(TOPICS, scene.blobs, link)
    link.start()
    scene.publisher.keep("manifest", b"m")
    scene.publisher.pump(0.0)
    assert scene.broker.retained == {}
    link.refuse = False
    scene.settle()
    assert scene.broker.retained == {"manifest": b"m"}


def test_a_clock_that_was_set_back_ends_the_search_for_lost_chunks(tmp_path: Path) -> None:
    """What a broker lost is published again although the search began a day from now."""
    scene = Scene(tmp_path)
    ref = scene.blob(b"a")
    scene.publisher.hold(TASK, "release/1", (ref,))
    scene.settle(100_000.0)
    scene.broker.lose_store()
    scene.publisher.connected(100_000.0)
    scene.settle(100_000.0 - 86_400)
    assert scene.chunks(ref) == [0, 1, 2]
    assert scene.publisher.idle


def test_a_forgotten_message_is_cleared_and_stays_so(tmp_path: Path) -> None:
    """Whether it was out or still waited; a new link does not bring it back; kept again, it is there."""
    scene = Scene(tmp_path)
    scene.publisher.keep("own", b"m")
    scene.settle()
    scene.publisher.keep("waiting", b"w")
    scene.publisher.forget("own")
    scene.publisher.forget("waiting")
    scene.settle()
    scene.publisher.connected(0.0)
    scene.settle()
    assert not {"own", "waiting"} & scene.broker.retained.keys()
    scene.publisher.forget("own")
    scene.publisher.keep("own", b"again")
    scene.settle()
    assert scene.broker.retained["own"] == b"again"


def test_what_is_too_large_for_the_broker_is_dropped_with_a_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Message or chunk: logged, counted, and what waits behind it goes out, at each connection."""
    scene = Scene(tmp_path)
    scene.transport.max_packet_bytes = 200
    scene.publisher.hold(TASK, "release/1", (scene.blobs.put(b"a" * 1000, 1000),))
    scene.publisher.keep("manifest", bytes(300))
    scene.publisher.keep("small", b"s")
    scene.settle()
    assert (scene.broker.retained, scene.publisher.drops) == ({"small": b"s"}, {"oversized": 2})
    assert "message of 308 bytes on 'manifest' exceeds the broker's 200" in caplog.text
    scene.publisher.connected(1.0)
    scene.settle(1.0)
    assert scene.publisher.drops == {"oversized": 3}


def test_what_was_too_large_is_tried_again_after_an_hour_on_the_same_link(tmp_path: Path) -> None:
    """A limit may have been found out wrongly: message and chunks go out then; nothing that was forgotten does."""
    scene = Scene(tmp_path)
    scene.transport.max_packet_bytes = 200
    ref = scene.blobs.put(b"a" * 1000, 1000)
    scene.publisher.hold(TASK, "release/1", (ref,))
    scene.publisher.keep("manifest", bytes(300))
    scene.publisher.keep("own", bytes(300))
    scene.settle()
    scene.publisher.forget("own")
    scene.transport.max_packet_bytes = 10_000
    scene.settle(FORGET_S - 1)
    assert scene.broker.retained == {}
    scene.settle(FORGET_S)
    scene.settle(FORGET_S + PROBE_S)
    assert (scene.broker.retained["manifest"], scene.chunks(ref)) == (bytes(300), [0])
    assert "own" not in scene.broker.retained
    before = scene.transport.traffic.messages_up
    scene.settle(3 * FORGET_S)
    assert scene.transport.traffic.messages_up == before
