"""Topics: building and parsing are inverse, and everything else is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_protocol.blobs import MAX_CHUNKS
from edge_protocol.errors import LocalProtocolError, RemoteProtocolError
from edge_protocol.ids import DeviceId, FleetId, TaskId
from edge_protocol.topics import (
    DOWN_KINDS,
    UP_KINDS,
    ChunkTopic,
    Downlink,
    MetadataTopic,
    Presence,
    ReleaseTopic,
    RoundTopic,
    Topics,
    Uplink,
)
from edge_protocol.transport.filters import matches
from edge_protocol.trust import role_of
from tests.edge_protocol.strategies import digests, ids

TOPICS = Topics(FleetId("demo"))


@given(ids, ids, ids, ids, digests, st.integers(0, MAX_CHUNKS - 1))
def test_parsing_undoes_building(fleet: str, prefix: str, device: str, task: str, digest: str, index: int) -> None:
    """Every topic that can be built is parsed to what it was built from, for any fleet and prefix."""
    topics = Topics(FleetId(fleet), prefix)
    name, job = DeviceId(device), TaskId(task)
    pairs = [
        *((topics.up(name, kind), Uplink(name, kind)) for kind in UP_KINDS),
        *((topics.down(name, kind), Downlink(name, kind)) for kind in DOWN_KINDS),
        (topics.online(name), Presence(name)),
        (topics.release(job), ReleaseTopic(job)),
        (topics.release(job, name), ReleaseTopic(job, name)),
        (topics.round(job), RoundTopic(job)),
        *((topics.metadata(file), MetadataTopic(file)) for file in ("12.root", "timestamp", "snapshot", "targets")),
        (topics.metadata(role_of(job)), MetadataTopic(role_of(job))),
        (topics.chunk(digest, index), ChunkTopic(digest, index)),
    ]
    assert [topics.parse(topic) for topic, _ in pairs] == [meaning for _, meaning in pairs]
    assert all(topic.count("/") <= 6 for topic, _ in pairs)


@given(st.lists(st.sampled_from(["rc", "v1", "demo", "d", "up", "state", "all", "blob", "0", "", "x y"]), max_size=9))
def test_whatever_parses_can_be_built(levels: list[str]) -> None:
    """A topic is either refused by name or has the one spelling that building gives."""
    topic = "/".join(levels)
    try:
        meaning = TOPICS.parse(topic)
    except RemoteProtocolError:
        return
    match meaning:
        case Uplink(device, kind):
            assert TOPICS.up(device, kind) == topic
        case Presence(device):
            assert TOPICS.online(device) == topic
        case ReleaseTopic(task, device):
            assert TOPICS.release(task, device) == topic
        case _:
            pytest.fail(f"{topic} was taken for {meaning}")


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        ("rc/v1/other/d/a/up/state", "wrong-fleet"),
        ("rc/v1/demo2/d/a/up/state", "wrong-fleet"),
        ("rc/v2/demo/d/a/up/state", "wrong-fleet"),
        ("rc/v1/demo", "wrong-fleet"),
        ("", "wrong-fleet"),
        ("rc/v1/demo/d/a/up/ack", "unknown-topic"),
        ("rc/v1/demo/d/a/down/state", "unknown-topic"),
        ("rc/v1/demo/d/a b/up/state", "unknown-topic"),
        ("rc/v1/demo/d//online", "unknown-topic"),
        ("rc/v1/demo/d/server/up/state", "unknown-topic"),
        (f"rc/v1/demo/d/{'a' * 65}/online", "unknown-topic"),
        ("rc/v1/demo/all/round/", "unknown-topic"),
        ("rc/v1/demo/all/tuf/0.root", "unknown-topic"),
        ("rc/v1/demo/all/tuf/root", "unknown-topic"),
        ("rc/v1/demo/all/tuf/vehicle", "unknown-topic"),
        (f"rc/v1/demo/blob/{'a' * 64}/01", "unknown-topic"),
        (f"rc/v1/demo/blob/{'a' * 64}/-1", "unknown-topic"),
        (f"rc/v1/demo/blob/{'a' * 64}/{MAX_CHUNKS}", "unknown-topic"),
        (f"rc/v1/demo/blob/{'A' * 64}/0", "unknown-topic"),
        (f"rc/v1/demo/blob/{'a' * 64}/0/0", "unknown-topic"),
    ],
)
def test_a_topic_without_meaning_is_named(topic: str, reason: str) -> None:
    """Other fleets, other versions, wrong directions, illegal names and other spellings of a number."""
    with pytest.raises(RemoteProtocolError) as error:
        TOPICS.parse(topic)
    assert error.value.reason == reason


@pytest.mark.parametrize("name", ["", "a/b", "a+", "#", "x" * 65, "é", "a\n", "server"])
def test_an_illegal_device_has_no_topics(name: str) -> None:
    """Names that could change a topic's meaning, and the server's, build nothing."""
    for build in (lambda: TOPICS.up(DeviceId(name), "state"), lambda: TOPICS.online(DeviceId(name))):
        with pytest.raises(LocalProtocolError) as error:
            build()
        assert error.value.reason == "bad-id"


def test_illegal_kinds_and_chunks_are_refused() -> None:
    """A kind of the other direction, and a chunk that cannot exist."""
    with pytest.raises(LocalProtocolError, match="one of birth"):
        TOPICS.up(DeviceId("a"), "ack")
    for digest, index in (("a" * 63, 0), ("a" * 64, -1), ("a" * 64, MAX_CHUNKS)):
        with pytest.raises(LocalProtocolError) as error:
            TOPICS.chunk(digest, index)
        assert error.value.reason == "bad-blob"
    with pytest.raises(LocalProtocolError):
        Topics(FleetId("a/b"))


@given(ids, st.sampled_from(UP_KINDS), st.sampled_from(DOWN_KINDS))
def test_the_filters_cover_what_they_should(device: str, up: str, down: str) -> None:
    """The server's filters cover every uplink and presence; a device's cover its downlinks and nobody else's."""
    name = DeviceId(device)
    uplinks, presences = TOPICS.every_uplink
    assert matches(uplinks, TOPICS.up(name, up))
    assert matches(presences, TOPICS.online(name))
    assert matches(TOPICS.every_downlink(name), TOPICS.down(name, down))
    assert not matches(TOPICS.every_downlink(name), TOPICS.down(DeviceId(f"{device[:60]}-x"), down))
    assert not matches(uplinks, TOPICS.down(name, down))
