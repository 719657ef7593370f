"""What every transport must do, on the in-process broker, Mosquitto and NATS alike."""

from __future__ import annotations

import contextlib
from queue import Empty

import pytest

from edge_protocol.transport.base import Connected, Disconnected, LastWill, Received
from tests.edge_protocol.transport.conftest import Bench, Client
from tests.fakes.waiting import next_of, take, wait_for

pytestmark = pytest.mark.broker


def say_until_heard(sender: Client, receiver: Client, topic: str) -> set[str]:
    """Publish on a topic until it arrives, since a new filter takes time to count; return the topics that arrived."""
    heard: set[str] = set()

    def arrived() -> bool:
        sender.transport.publish(topic, b"yes")
        with contextlib.suppress(Empty):
            while True:
                event = receiver.inbox.get(timeout=0.05)
                heard.update([event.topic] if isinstance(event, Received) else [])
        return topic in heard

    wait_for(arrived, topic)
    return heard


def test_a_message_arrives_byte_for_byte(bench: Bench) -> None:
    """Payloads of every size up to a chunk arrive unchanged, in order, and not marked as retained."""
    sender, receiver = bench.client("sender").connect(), bench.client("receiver")
    receiver.transport.subscribe(["rc/v1/f/d/+/up/+"])
    receiver.connect()
    payloads = [bytes(range(256)) * 4, b"\0", b"x" * 61_440]
    for payload in payloads:
        assert wait_for(lambda p=payload: sender.transport.publish("rc/v1/f/d/a/up/state", p), "room")
    assert [m.payload for m in take(receiver.inbox, Received, 3)] == payloads


def test_a_filter_added_while_connected_counts(bench: Bench) -> None:
    """Subscribing after the link is up works like subscribing before, and other topics stay away."""
    sender, receiver = bench.client("sender").connect(), bench.client("receiver").connect()
    receiver.transport.subscribe(["a/one", "a/two"])
    assert say_until_heard(sender, receiver, "a/one") == {"a/one"}
    sender.transport.publish("a/other", b"no")
    assert say_until_heard(sender, receiver, "a/two") <= {"a/one", "a/two"}


def test_a_retained_message_waits_for_late_subscribers(bench: Bench) -> None:
    """A subscriber that comes later gets the newest retained message, marked as retained."""
    sender = bench.client("sender").connect()
    echo = bench.client("echo")
    echo.transport.subscribe(["all/round/speed"])
    echo.connect()
    sender.transport.publish("all/round/speed", b"old", retain=True)
    sender.transport.publish("all/round/speed", b"new", retain=True)
    take(echo.inbox, Received, 2)
    late = bench.client("late")
    late.transport.subscribe(["all/round/+"])
    late.connect()
    assert next_of(late.inbox, Received) == Received("all/round/speed", b"new", retained=True)


def test_an_empty_retained_message_clears_the_topic(bench: Bench) -> None:
    """After an empty retained payload a late subscriber finds nothing there, only what else is retained."""
    sender = bench.client("sender").connect()
    echo = bench.client("echo")
    echo.transport.subscribe(["blob/#"])
    echo.connect()
    for topic, payload in [("blob/a/0", b"gone"), ("blob/a/0", b""), ("blob/a/1", b"kept")]:
        sender.transport.publish(topic, payload, retain=True)
    take(echo.inbox, Received, 3)
    late = bench.client("late")
    late.transport.subscribe(["blob/a/0"])
    late.transport.subscribe(["blob/a/1"])
    late.connect()
    assert next_of(late.inbox, Received) == Received("blob/a/1", b"kept", retained=True)


def test_an_unsubscribed_filter_is_silent(bench: Bench) -> None:
    """After unsubscribing, messages of that filter stop, and those of the others go on."""
    sender, receiver = bench.client("sender").connect(), bench.client("receiver")
    receiver.transport.subscribe(["x/1", "x/2"])
    receiver.connect()
    receiver.transport.unsubscribe(["x/1", "x/never-had"])
    receiver.transport.subscribe(["x/3"])  # once it counts, the broker has read all before it
    say_until_heard(sender, receiver, "x/3")
    sender.transport.publish("x/1", b"no")
    assert say_until_heard(sender, receiver, "x/2") <= {"x/2", "x/3"}


def test_filters_are_renewed_after_a_cut(bench: Bench) -> None:
    """A new connection has a new generation and every filter of the old one, without the application's help."""
    sender, receiver = bench.client("sender").connect(), bench.client("receiver")
    receiver.transport.subscribe([f"many/{i}" for i in range(50)])
    receiver.connect()
    receiver.cut()
    next_of(receiver.inbox, Disconnected)
    receiver.transport.start()
    assert next_of(receiver.inbox, Connected).generation == 2
    for i in (0, 49):
        sender.transport.publish(f"many/{i}", b"again", retain=True)
        assert next_of(receiver.inbox, Received).topic == f"many/{i}"


def test_the_will_is_said_when_the_link_dies(bench: Bench) -> None:
    """A cut link makes the broker publish the last will, retained."""
    watcher = bench.client("watcher")
    watcher.transport.subscribe(["d/+/online"])
    watcher.connect()
    device = bench.client("device", LastWill("d/a/online", b"offline")).connect()
    device.cut()
    assert next_of(watcher.inbox, Received).payload == b"offline"
    late = bench.client("late")
    late.transport.subscribe(["d/+/online"])
    late.connect()
    assert next_of(late.inbox, Received) == Received("d/a/online", b"offline", retained=True)


def test_the_will_is_not_said_after_an_orderly_end(bench: Bench) -> None:
    """Closing publishes no will; the next message the watcher gets is another one."""
    watcher = bench.client("watcher")
    watcher.transport.subscribe(["d/+/online", "d/marker"])
    watcher.connect()
    device = bench.client("device", LastWill("d/a/online", b"offline")).connect()
    device.transport.close()
    next_of(device.inbox, Disconnected)
    bench.client("other").connect().transport.publish("d/marker", b"after")
    assert next_of(watcher.inbox, Received).topic == "d/marker"


def test_nothing_is_taken_while_the_link_is_down(bench: Bench) -> None:
    """Before the start and after the end, a publish is refused and counts as no traffic."""
    client = bench.client("one")
    assert not client.transport.publish("x", b"early")
    assert not client.transport.ready
    assert not client.transport.connected
    client.connect()
    assert client.transport.connected
    assert client.transport.ready
    client.transport.close()
    client.transport.close()
    assert not client.transport.publish("x", b"late")
    assert client.transport.traffic.messages_up == 0


def test_traffic_counts_payload_and_topic(bench: Bench) -> None:
    """Both ends count the same messages and bytes."""
    sender, receiver = bench.client("sender").connect(), bench.client("receiver")
    receiver.transport.subscribe(["t/+"])
    receiver.connect()
    for size in (1, 10, 100):
        sender.transport.publish("t/x", b"p" * size)
    take(receiver.inbox, Received, 3)
    up, down = sender.transport.traffic, receiver.transport.traffic
    assert (up.messages_up, up.bytes_up) == (3, 111 + 9)
    assert (down.messages_down, down.bytes_down) == (3, 111 + 9)
