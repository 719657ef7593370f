"""The access rules, read as Mosquitto reads them: each topic goes to whom it is for, and to nobody else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker_server.brokers.access import CONTROL, access_rules
from broker_server.ca.issuing import OPERATOR
from edge_protocol import topics as t
from edge_protocol.ids import SERVER, DeviceId, FleetId, TaskId
from edge_protocol.transport.filters import matches

RULES = access_rules("city").splitlines()
TOPICS = t.Topics(FleetId("city"))
CAM, TASK = DeviceId("cam-1"), TaskId("vehicle")
TO_ALL = {("read", "cam-1"), ("read", "cam-2"), ("read", SERVER), ("read", OPERATOR), ("write", SERVER)}
TO_ONE = {("read", "cam-1"), ("write", SERVER)}
FROM_ONE = {("write", "cam-1"), ("read", SERVER)}
EXPECTED = {
    t.Uplink: ([TOPICS.up(CAM, kind) for kind in t.UP_KINDS], FROM_ONE),
    t.Presence: ([TOPICS.online(CAM)], FROM_ONE),
    t.Downlink: ([TOPICS.down(CAM, kind) for kind in t.DOWN_KINDS], TO_ONE),
    t.ReleaseTopic: ([TOPICS.release(TASK)], TO_ALL),
    t.MetadataTopic: ([TOPICS.metadata(name) for name in ("1.root", "timestamp", "targets", "task-vehicle")], TO_ALL),
    t.RoundTopic: ([TOPICS.round(TASK)], TO_ALL),
    t.ChunkTopic: ([TOPICS.chunk("0" * 64, 7)], TO_ALL),
}
"""By meaning of a topic: examples, and who may do what with them."""
PEOPLE = (SERVER, OPERATOR, "cam-1", "cam-2")
names = st.text("abc019_-", min_size=1, max_size=12).filter(lambda name: name not in {SERVER, OPERATOR})


def allowed(user: str, access: str, topic: str) -> bool:
    """What mosquitto.conf(5) says of `acl_file`: topics of the user, and patterns for everybody."""
    of = ""
    for line in RULES:
        match line.split():
            case ["user", name]:
                of = name
            case ["topic", may, pattern] if of == user and may == access and matches(pattern, topic):
                return True
            case ["pattern", may, pattern] if may == access and matches(pattern.replace("%u", user), topic):
                return True
    return False


def who(topic: str) -> set[tuple[str, str]]:
    """Who may do what with a topic."""
    return {(access, user) for access in ("read", "write") for user in PEOPLE if allowed(user, access, topic)}


def test_every_kind_of_topic_has_its_rules() -> None:
    """No meaning of a topic is left out here, and the rules of each are exact."""
    assert set(EXPECTED) == set(t.Topic.__args__)
    for examples, expected in EXPECTED.values():
        assert [who(topic) for topic in examples] == [expected] * len(examples)


def test_a_device_s_own_release_is_its_own() -> None:
    """A release ahead of the fleet is written by the server and read by that device."""
    assert who(TOPICS.release(TASK, CAM)) == TO_ONE


def test_sessions_are_ended_by_the_operator_only() -> None:
    """Nobody else may write on the control topic or read its answers."""
    assert who(CONTROL) == {("write", OPERATOR)}
    assert who(f"{CONTROL}/response") == {("read", OPERATOR)}


@given(names, names, st.sampled_from(t.UP_KINDS))
def test_no_name_writes_as_another(writer: str, victim: str, kind: str) -> None:
    """Whatever two devices are called, one writes on the other's uplink only when they are the same."""
    assert allowed(writer, "write", TOPICS.up(DeviceId(victim), kind)) == (writer == victim)
    assert allowed(writer, "write", TOPICS.online(DeviceId(victim))) == (writer == victim)
    assert not allowed(writer, "write", TOPICS.down(DeviceId(victim), "command"))


@given(names, st.lists(st.text("abc+#$/", max_size=6), max_size=6).map("/".join))
def test_a_device_writes_nowhere_else(writer: str, topic: str) -> None:
    """Of arbitrary topics, with and without the fleet's beginning, none may be written but a device's own leaves."""
    own = {TOPICS.online(DeviceId(writer)), *(TOPICS.up(DeviceId(writer), kind) for kind in t.UP_KINDS)}
    for place in (topic, f"rc/v1/city/{topic}", f"rc/v1/city/d/{writer}/{topic}", f"rc/v1/other/d/{writer}/up/state"):
        assert allowed(writer, "write", place) == (place in own)
