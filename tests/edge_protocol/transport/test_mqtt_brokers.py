"""The MQTT transport on real brokers that die, through links that break, and from many threads at once."""

from __future__ import annotations

import threading
from pathlib import Path
from queue import Queue
from typing import Any

import msgspec
import pytest

from broker_server.brokers import Broker
from edge_protocol.errors import LocalProtocolError
from edge_protocol.transport.base import Connected, Disconnected, Received, Refused
from edge_protocol.transport.in_flight import STRIKES
from edge_protocol.transport.mqtt import MqttTransport
from tests.fakes.brokers import make_broker
from tests.fakes.proxy import Proxy
from tests.fakes.waiting import next_of, take, wait_for

pytestmark = pytest.mark.broker


def client(broker: Broker, name: str, *, port: int = 0, window: int = 20) -> tuple[MqttTransport, Queue[Any]]:
    """A transport that comes back quickly, and its inbox."""
    inbox: Queue[Any] = Queue(10_000)
    settings = msgspec.structs.replace(broker.settings, port=port or broker.port, window=window, reconnect_max_s=0.2)
    return MqttTransport(settings, name, inbox), inbox


def test_a_killed_broker_comes_back_on_its_port(any_broker: Broker) -> None:
    """After kill -9 and a restart the transport connects again and has its filters, and messages flow."""
    receiver, inbox = client(any_broker, "receiver")
    sender, echo = client(any_broker, "sender")
    try:
        receiver.subscribe(["a/+"])
        for transport in (receiver, sender):
            transport.start()
        for events in (inbox, echo):
            next_of(events, Connected)
        any_broker.kill()
        for events in (inbox, echo):
            next_of(events, Disconnected)
        assert not sender.publish("a/1", b"nobody")
        any_broker.start()
        for events in (inbox, echo):
            assert next_of(events, Connected).generation == 2
        assert sender.publish("a/1", b"back")
        assert next_of(inbox, Received) == Received("a/1", b"back")
    finally:
        receiver.close()
        sender.close()


def test_a_broker_that_starts_late_is_found(any_broker: Broker) -> None:
    """A transport started before its broker keeps trying and connects once it is there."""
    any_broker.stop()
    transport, inbox = client(any_broker, "early")
    try:
        transport.start()
        assert inbox.get(timeout=20).reason == "connect-failed"
        any_broker.start()
        assert next_of(inbox, Connected).generation == 1
    finally:
        transport.close()


def test_nothing_is_lost_when_the_sender_repeats_and_the_receiver_remembers(any_broker: Broker) -> None:
    """Through three cuts, 300 numbered messages all arrive when missing ones are sent again; extras are known."""
    with Proxy(any_broker.port) as proxy:
        receiver, inbox = client(any_broker, "receiver")
        sender, echo = client(any_broker, "sender", port=proxy.port)
        try:
            receiver.subscribe(["n"])
            receiver.start()
            sender.start()
            next_of(inbox, Connected)
            next_of(echo, Connected)
            missing, cuts = set(range(300)), 0
            while missing:
                for number in sorted(missing):
                    sender.publish("n", number.to_bytes(2, "big") + bytes(2000))
                if cuts < 3:
                    cuts += 1
                    proxy.cut()
                    next_of(echo, Connected)
                wait_for(lambda: sender.ready or not sender.connected, "room or a cut")
                while not inbox.empty():
                    event = inbox.get()
                    if isinstance(event, Received):
                        missing.discard(int.from_bytes(event.payload[:2], "big"))
            assert proxy.links == 4
        finally:
            receiver.close()
            sender.close()


def test_many_threads_share_one_link(mosquitto_broker: Broker) -> None:
    """Four threads publishing large messages at once do not mix up the bytes on the wire."""
    receiver, inbox = client(mosquitto_broker, "receiver")
    sender, _ = client(mosquitto_broker, "sender", window=4)
    try:
        receiver.subscribe(["t/+"])
        receiver.start()
        sender.start()
        next_of(inbox, Connected)
        wait_for(lambda: sender.connected, "link")

        def work(name: int) -> None:
            for number in range(25):
                wait_for(lambda n=number: sender.publish(f"t/{name}", bytes([name, n]) * 30_000), "room")

        threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        got = take(inbox, Received, 100)
        for thread in threads:
            thread.join()
        for name in range(4):
            mine = [m.payload for m in got if m.topic == f"t/{name}"]
            assert mine == [bytes([name, n]) * 30_000 for n in range(25)]
    finally:
        receiver.close()
        sender.close()


def test_a_stalled_link_is_given_up(mosquitto_broker: Broker) -> None:
    """A link that stays open but carries nothing ends by keepalive, and the next one works."""
    with Proxy(mosquitto_broker.port) as proxy:
        inbox: Queue[Any] = Queue(100)
        settings = msgspec.structs.replace(
            mosquitto_broker.settings, port=proxy.port, keepalive_s=1, reconnect_max_s=0.2
        )
        transport = MqttTransport(settings, "dev", inbox)
        try:
            transport.start()
            next_of(inbox, Connected)
            proxy.stall()
            assert next_of(inbox, Disconnected).reason == "Keep alive timeout"
            proxy.flow()
            assert next_of(inbox, Connected).generation == 2
        finally:
            transport.close()


def test_a_limit_that_the_broker_did_not_tell_is_found_out(tmp_path: Path) -> None:
    """A message over it ends some links, then is refused with a reason; smaller ones and the link go on."""
    with make_broker("mosquitto", tmp_path, max_packet_bytes=4096) as broker:
        inbox: Queue[Any] = Queue(10_000)
        settings = msgspec.structs.replace(broker.settings, max_packet_bytes=1 << 20, reconnect_max_s=0.1)
        transport = MqttTransport(settings, "sender", inbox)
        try:
            transport.start()
            for _ in range(STRIKES):
                next_of(inbox, Connected)
                assert transport.publish("a", bytes(5000))
            assert next_of(inbox, Refused).reason == "packet-limit"
            next_of(inbox, Connected)
            with pytest.raises(LocalProtocolError, match="too large for the broker") as refused:
                transport.publish("a", bytes(5000))
            assert refused.value.reason == "oversized"
            assert transport.publish("a", bytes(4000))
            wait_for(lambda: transport.ready and not len(transport._in_flight), "the acknowledgement")
            assert transport.connected
        finally:
            transport.close()
