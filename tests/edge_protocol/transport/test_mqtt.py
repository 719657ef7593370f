"""The traps of paho and of brokers that misbehave: each is set off here, and the link outlives it."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from edge_protocol.errors import ConfigError, LocalProtocolError
from edge_protocol.transport.base import Connected, Disconnected, LastWill, Received, Refused
from edge_protocol.transport.mqtt import SUBSCRIBE_BATCH, MqttTransport, mqtt_transport
from edge_protocol.transport.settings import BrokerSettings
from tests.fakes.certificates import Authority
from tests.fakes.scripted_broker import CONNECT, DISCONNECT, PUBLISH, SUBSCRIBE, Link, ScriptedBroker
from tests.fakes.waiting import next_of, take, wait_for


class FaultyInbox(Queue[Any]):
    """An inbox that raises an exception instead of taking the first message."""

    def __init__(self, fault: BaseException) -> None:
        super().__init__(100)
        self._faults = [fault]

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Take an event, but for the first message."""
        if isinstance(item, Received) and self._faults:
            raise self._faults.pop()
        super().put(item, block, timeout)


Make = Callable[..., MqttTransport]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes transports to a port, quick to come back, and closes them."""
    made: list[MqttTransport] = []

    def build(port: int, inbox: Queue[Any], *, patience_s: float = 1.0, **settings: Any) -> MqttTransport:
        chosen = BrokerSettings(port=port, **{"reconnect_max_s": 0.1, **settings})
        made.append(MqttTransport(chosen, "dev", inbox, patience_s=patience_s))
        return made[-1]

    yield build
    for transport in made:
        transport.close()


def test_an_exception_in_a_callback_costs_one_message(make: Make) -> None:
    """What raises while a message is handled is reported; the link stays, and the next message arrives."""

    def script(link: Link) -> None:
        link.accept()
        link.publish("a", b"lost", mid=1)
        link.publish("a", b"next", mid=2)
        link.hold()

    inbox = FaultyInbox(RuntimeError("a bug in the application"))
    with ScriptedBroker(script) as broker:
        make(broker.port, inbox).start()
        assert "a bug in the application" in next_of(inbox, Refused).detail
        assert next_of(inbox, Received).payload == b"next"
        assert len(broker.links) == 1


def test_a_dying_network_thread_comes_back(make: Make) -> None:
    """Even SystemExit in the network thread is reported, and ends in a new connection with the same filters."""

    def script(link: Link) -> None:
        link.accept()
        link.grant()
        link.publish("a", b"%d" % link.number)
        link.hold()

    inbox = FaultyInbox(SystemExit("killed"))
    with ScriptedBroker(script) as broker:
        transport = make(broker.port, inbox)
        transport.subscribe(["a"])
        transport.start()
        assert next_of(inbox, Connected).generation == 1
        refused = next_of(inbox, Refused)
        assert (refused.reason, "killed" in refused.detail) == ("network-thread", True)
        assert "killed" in next_of(inbox, Disconnected).reason
        assert next_of(inbox, Connected).generation == 2
        assert next_of(inbox, Received).payload == b"2"


def test_an_undecodable_topic_is_reported(make: Make) -> None:
    """A topic that is no UTF-8 costs that message only."""

    def script(link: Link) -> None:
        link.accept()
        link.send(PUBLISH, b"\x00\x02\xff\xfepayload")
        link.publish("fine", b"next")
        link.hold()

    inbox: Queue[Any] = Queue(100)
    with ScriptedBroker(script) as broker:
        make(broker.port, inbox).start()
        assert next_of(inbox, Refused).reason == "callback-failed"
        assert next_of(inbox, Received).topic == "fine"


def test_an_offline_publish_is_never_sent(make: Make) -> None:
    """What was refused while offline is not queued anywhere: the first message on the link is the first one taken."""
    inbox: Queue[Any] = Queue(100)
    first: Queue[bytes] = Queue()

    def script(link: Link) -> None:
        link.accept()
        first.put(link.expect(PUBLISH).payload)
        link.hold()

    with ScriptedBroker(script) as broker:
        transport = make(broker.port, inbox)
        assert not transport.publish("a", b"offline")
        transport.start()
        next_of(inbox, Connected)
        assert transport.publish("a", b"online")
        assert first.get(timeout=10) == b"online"


def test_the_window_bounds_what_is_unacknowledged(make: Make) -> None:
    """Beyond the window nothing is taken; one acknowledgement makes room for one message."""
    inbox: Queue[Any] = Queue(100)
    go = threading.Event()

    def script(link: Link) -> None:
        link.accept()
        held = [link.expect(PUBLISH) for _ in range(5)]
        go.wait(10)
        link.ack(held[0])
        link.expect(PUBLISH)
        link.hold()

    with ScriptedBroker(script) as broker:
        transport = make(broker.port, inbox, window=5)
        transport.start()
        next_of(inbox, Connected)
        assert [transport.publish("a", b"%d" % i) for i in range(7)] == [True] * 5 + [False] * 2
        assert not transport.ready
        assert transport.connected
        go.set()
        wait_for(lambda: transport.ready, "room in the window")
        assert transport.publish("a", b"7")
        assert not transport.publish("a", b"8")
        wait_for(lambda: len([p for p in broker.links[0].seen if p.kind == PUBLISH]) == 6, "the sixth message")


def test_nothing_is_replayed_on_a_new_connection(make: Make) -> None:
    """Unacknowledged messages of a lost link are not sent again: no burst, no duplicate, a clean session."""
    inbox: Queue[Any] = Queue(100)

    def script(link: Link) -> None:
        connect = link.accept()
        assert connect.body[7] & 2, "the session must be clean"
        if link.number == 1:
            for _ in range(10):
                link.expect(PUBLISH)
            return
        link.expect(PUBLISH)
        link.hold()

    with ScriptedBroker(script) as broker:
        transport = make(broker.port, inbox, window=10)
        transport.start()
        next_of(inbox, Connected)
        assert all(transport.publish("a", b"old") for _ in range(10))
        next_of(inbox, Disconnected)
        next_of(inbox, Connected)
        assert transport.ready
        assert transport.publish("a", b"new")
        transport.close()
        wait_for(lambda: broker.links[1].seen[-1].kind == DISCONNECT, "the orderly end")
        sent = [p for p in broker.links[1].seen if p.kind == PUBLISH]
        assert [(p.payload, p.duplicate) for p in sent] == [(b"new", False)]


def test_a_message_too_large_for_the_broker_never_leaves(make: Make) -> None:
    """The transport's own limit stands in for those that MQTT 3.1.1 cannot announce; the link is not lost over it."""
    inbox: Queue[Any] = Queue(100)

    def script(link: Link) -> None:
        link.accept()
        link.ack(link.expect(PUBLISH))
        link.hold()

    with ScriptedBroker(script) as broker:
        transport = make(broker.port, inbox, max_packet_bytes=1024)
        transport.start()
        next_of(inbox, Connected)
        with pytest.raises(LocalProtocolError, match="exceeds the broker's 1024") as refused:
            transport.publish("a", bytes(1015))
        assert refused.value.reason == "oversized"
        assert transport.publish("a", bytes(1014))
        wait_for(lambda: any(p.kind == PUBLISH for p in broker.links[0].seen), "the message that fits")
        assert transport.traffic.messages_up == 1


def test_a_refused_connection_is_reported_and_tried_again(make: Make) -> None:
    """Wrong credentials are named; a later attempt that is accepted counts as the first connection."""
    inbox: Queue[Any] = Queue(100)

    def script(link: Link) -> None:
        link.accept(code=5 if link.number == 1 else 0)
        link.hold()

    with ScriptedBroker(script) as broker:
        make(broker.port, inbox).start()
        refused = inbox.get(timeout=10)
        assert refused.reason == "connect-failed"
        assert "Not authorized" in refused.detail
        assert inbox.get(timeout=10) == Connected(1)


def test_a_denied_subscription_is_named(make: Make) -> None:
    """SUBACK 0x80 becomes Refused with the filter's name, and the link stays."""
    inbox: Queue[Any] = Queue(100)

    def script(link: Link) -> None:
        link.accept()
        link.grant(code=0x80)
        link.hold()

    with ScriptedBroker(script) as broker:
        transport = make(broker.port, inbox)
        transport.subscribe(["secret/#"])
        transport.start()
        refused = next_of(inbox, Refused)
        assert (refused.reason, "secret/#" in refused.detail) == ("subscription-denied", True)
        assert next_of(inbox, Connected).generation == 1


def test_filters_are_granted_before_connected_is_said(make: Make) -> None:
    """Filters travel in batches; Connected comes after the last SUBACK, and early messages after Connected."""
    inbox: Queue[Any] = Queue(100)
    wanted = [f"a/{i}" for i in range(2 * SUBSCRIBE_BATCH + 1)]
    go = threading.Event()

    def script(link: Link) -> None:
        link.accept()
        link.grant()
        link.publish("a/0", b"retained")
        link.grant()
        go.wait(10)
        link.grant()
        link.expect(PUBLISH)
        link.hold()

    with ScriptedBroker(script) as broker:
        transport = make(broker.port, inbox)
        transport.subscribe(wanted)
        transport.start()
        wait_for(lambda: transport.connected, "CONNACK")
        assert inbox.empty()
        go.set()
        assert [inbox.get(timeout=10) for _ in range(2)] == [Connected(1), Received("a/0", b"retained")]
        transport.publish("b", b"first")
        wait_for(lambda: broker.links[0].seen[-1].kind == PUBLISH, "the first message")
        packets = [p for p in broker.links[0].seen if p.kind == SUBSCRIBE]
        assert [len(p.filters) for p in packets] == [SUBSCRIBE_BATCH, SUBSCRIBE_BATCH, 1]
        assert [name for p in packets for name in p.filters] == wanted


def test_duplicates_and_wrong_order_reach_the_application(make: Make) -> None:
    """The transport hides neither: only the message id inside tells what has been seen."""
    inbox: Queue[Any] = Queue(100)

    def script(link: Link) -> None:
        link.accept()
        link.publish("a", b"2", mid=2)
        link.publish("a", b"1", mid=1)
        link.publish("a", b"2", mid=2, duplicate=True)
        link.hold()

    with ScriptedBroker(script) as broker:
        make(broker.port, inbox).start()
        assert [m.payload for m in take(inbox, Received, 3)] == [b"2", b"1", b"2"]


@pytest.mark.parametrize("connack", [True, False])
def test_a_silent_broker_is_found_dead(make: Make, connack: bool) -> None:
    """A link on which nothing comes back ends within about two keepalives, before and after CONNACK."""
    inbox: Queue[Any] = Queue(100)

    def script(link: Link) -> None:
        link.accept() if connack else link.expect(CONNECT)
        while True:
            link.read()

    with ScriptedBroker(script) as broker:
        make(broker.port, inbox, keepalive_s=1).start()
        if connack:
            assert next_of(inbox, Disconnected).reason == "Keep alive timeout"
        else:
            assert next_of(inbox, Refused).reason == "connect-failed"
        wait_for(lambda: len(broker.links) > 1, "a new connection")


def test_a_full_inbox_drops_and_counts(make: Make) -> None:
    """A consumer that does not keep up loses messages, learns how many, and gets the next ones again."""
    inbox: Queue[Any] = Queue(2)
    dropped, go = threading.Event(), threading.Event()

    def script(link: Link) -> None:
        link.accept()
        for mid in range(1, 7):
            link.publish("a", b"%d" % mid, mid=mid)
        for _ in range(6):
            link.expect(4)
        dropped.set()
        go.wait(10)
        link.publish("a", b"again", mid=7)
        link.hold()

    with ScriptedBroker(script) as broker:
        make(broker.port, inbox, patience_s=0.05).start()
        assert dropped.wait(20)
        assert [inbox.get(timeout=10) for _ in range(2)] == [Connected(1), Received("a", b"1")]
        assert inbox.get(timeout=10).detail.startswith("5 messages")
        go.set()
        assert inbox.get(timeout=10).payload == b"again"


def test_close_ends_the_thread_in_order(make: Make) -> None:
    """Close says DISCONNECT, reports the end, joins its thread, and makes a later start do nothing."""
    inbox: Queue[Any] = Queue(100)

    def script(link: Link) -> None:
        link.accept()
        link.hold()

    with ScriptedBroker(script) as broker:
        transport = make(broker.port, inbox)
        transport.start()
        transport.start()
        next_of(inbox, Connected)
        transport.close()
        assert next_of(inbox, Disconnected).reason == "closed"
        assert not [t for t in threading.enumerate() if t.name == "mqtt-dev"]
        wait_for(lambda: broker.links[0].seen[-1].kind == DISCONNECT, "DISCONNECT")
        transport.start()
        assert not [t for t in threading.enumerate() if t.name == "mqtt-dev"]
        assert len(broker.links) == 1


def test_close_does_not_wait_for_a_broker_that_never_answers(make: Make) -> None:
    """Closing before CONNACK ends the thread all the same."""
    inbox: Queue[Any] = Queue(100)

    def script(link: Link) -> None:
        while True:
            link.read()

    with ScriptedBroker(script) as broker:
        transport = make(broker.port, inbox)
        transport.start()
        wait_for(lambda: broker.links and broker.links[0].seen, "CONNECT")
        transport.close()
        assert not [t for t in threading.enumerate() if t.name == "mqtt-dev"]


def test_credentials_and_will_stand_in_connect(tmp_path: Path) -> None:
    """User name, the first line of the password file, client id and last will all travel in CONNECT."""
    (tmp_path / "password").write_text("s3cret\nnot this\n", encoding="utf-8")
    inbox: Queue[Any] = Queue(100)

    def script(link: Link) -> None:
        link.accept()
        link.hold()

    with ScriptedBroker(script) as broker:
        settings = BrokerSettings(port=broker.port, username="cam", password_file=str(tmp_path / "password"))
        transport = mqtt_transport(settings, "cam-1", inbox, LastWill("d/cam-1/online", b"gone"))
        transport.start()
        next_of(inbox, Connected)
        transport.close()
        body = broker.links[0].seen[0].body
        assert body[:8] == b"\x00\x04MQTT\x04\xee"
        assert body[10:] == b"\0\5cam-1\0\x0ed/cam-1/online\0\4gone\0\3cam\0\6s3cret"


# paho leaves a socket whose handshake failed to the garbage collector, which closes it and warns.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket")
@pytest.mark.parametrize("trusted", [True, False])
def test_tls_checks_both_ends(tmp_path: Path, trusted: bool) -> None:
    """With the right authority both ends talk, in many records or few; with another one the link is refused."""
    said = [b"secret", bytes(100_000), *(b"%d" % number for number in range(40)), bytes(100_000)]
    ours, other = Authority(), Authority()
    server = ours.issue(tmp_path / "server", "127.0.0.1")
    client = ours.issue(tmp_path / "client", "cam-1")
    ca = (ours if trusted else other).write(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*server)
    context.load_verify_locations(ours.write(tmp_path / "server-ca.pem"))
    context.verify_mode = ssl.CERT_REQUIRED

    def script(link: Link) -> None:
        link.raw = context.wrap_socket(link.raw, server_side=True)
        with link.raw:
            link.accept()
            for payload in said:
                link.publish("a", payload)
            link.hold()

    inbox: Queue[Any] = Queue(100)
    with ScriptedBroker(script) as broker:
        settings = BrokerSettings(port=broker.port, ca_file=str(ca), cert_file=str(client[0]), key_file=str(client[1]))
        transport = mqtt_transport(settings, "cam-1", inbox)
        transport.start()
        if trusted:
            assert [next_of(inbox, Received).payload for _ in said] == said
        else:
            assert "CERTIFICATE_VERIFY_FAILED" in next_of(inbox, Refused).detail
        transport.close()


@pytest.mark.parametrize(
    "settings",
    [
        BrokerSettings(username="u", password_file="/nonexistent/password"),
        BrokerSettings(ca_file="/nonexistent/ca.pem"),
    ],
)
def test_a_missing_file_is_a_configuration_error(settings: BrokerSettings) -> None:
    """A password or certificate that cannot be read is named before anything starts."""
    with pytest.raises(ConfigError, match="broker: cannot"):
        mqtt_transport(settings, "dev", Queue())


def test_illegal_topics_and_filters_are_our_own_errors(make: Make) -> None:
    """A filter that is none is refused where it is given; so is a topic with a wildcard."""
    inbox: Queue[Any] = Queue(100)

    def script(link: Link) -> None:
        link.accept()
        link.hold()

    with ScriptedBroker(script) as broker:
        transport = make(broker.port, inbox, window=1)
        for pattern in ("", "a/#/b", "a+", "a/b#", "a\0b", "x" * 70_000):
            with pytest.raises(LocalProtocolError, match="no topic filter"):
                transport.subscribe([pattern])
        transport.start()
        next_of(inbox, Connected)
        with pytest.raises(LocalProtocolError, match="cannot publish"):
            transport.publish("a/+", b"x")
        assert transport.ready, "a refused message must not occupy the window"
