"""A real Mosquitto as `roadcast broker config` writes it, an authority, and clients with certificates of it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue

import msgspec
import pytest

from broker_server.brokers.secure import SecureMosquitto, identity_of, write_configuration
from broker_server.ca.folder import CertificateAuthority
from broker_server.ca.issuing import BROKER, OPERATOR
from edge_protocol.ids import SERVER, FleetId
from edge_protocol.topics import Topics
from edge_protocol.transport.base import Inbox, LastWill, Received
from edge_protocol.transport.mqtt import MqttTransport, mqtt_transport
from edge_protocol.transport.settings import BrokerSettings
from tests.fakes.authority import HOST, certified, make_authority
from tests.fakes.waiting import next_of, wait_for

TOPICS = Topics(FleetId("sim"))


@dataclass
class Client:
    """A connected client and what it has heard.

    Attributes:
        name: of its certificate.
    """

    name: str
    link: MqttTransport
    inbox: Inbox

    def say(self, topic: str, payload: bytes = b"x", *, retain: bool = False) -> None:
        """Publish, as soon as the window has room."""
        wait_for(lambda: self.link.publish(topic, payload, retain=retain), f"room for {topic}")

    def hear(self, until: bytes) -> list[Received]:
        """Return what comes before the message with that payload."""
        heard: list[Received] = []
        while (event := next_of(self.inbox, Received)).payload != until:
            heard.append(event)
        return heard

    def events(self) -> list[object]:
        """What has come so far."""
        found: list[object] = []
        try:
            while True:
                found.append(self.inbox.get_nowait())
        except Empty:
            return found


class SecureScene:
    """The broker and everybody who has a certificate."""

    def __init__(self, folder: Path) -> None:
        now = time.time()
        self.folder, self.broker_folder = folder, folder / "broker"
        self.authority: CertificateAuthority = make_authority(folder / "ca", now=now)
        with socket.create_server((HOST, 0)) as listener:
            port = listener.getsockname()[1]
        write_configuration(self.broker_folder, "sim", HOST, port)
        for name, hosts in ((BROKER, [HOST]), (OPERATOR, [])):
            files = identity_of(self.broker_folder, name)
            chain = self.authority.sign(files.request(name), name, hosts, now)
            files.install(chain, self.authority.anchors, name)
        (self.broker_folder / "crl.pem").write_bytes(self.authority.revocations(now))
        self.broker = SecureMosquitto(self.broker_folder, start_timeout_s=60)
        self._open: list[MqttTransport] = []

    def settings(self, name: str) -> BrokerSettings:
        """How a device or the server reaches the broker; it is certified when it has not been."""
        folder = self.folder / name
        if not (folder / "own.pem").exists():
            certified(self.authority, folder, name, time.time())
        files = {"ca_file": "ca.pem", "cert_file": "own.pem", "key_file": "own.key"}
        named = {what: str(folder / file) for what, file in files.items()}
        return msgspec.structs.replace(self.broker.settings, **named, max_packet_bytes=64 << 20)

    def client(self, name: str, *filters: str, client_id: str = "anything", will: LastWill | None = None) -> Client:
        """Connect a client."""
        made = self.unconnected(self.settings(name), *filters, client_id=client_id, will=will)
        wait_for(lambda: made.link.connected, f"link of {name}", within_s=60)
        return Client(name, made.link, made.inbox)

    def unconnected(
        self, settings: BrokerSettings, *filters: str, client_id: str = "anything", will: LastWill | None = None
    ) -> Client:
        """Begin to connect."""
        inbox: Inbox = Queue()
        link = mqtt_transport(settings, client_id, inbox, will)
        link.subscribe(filters)
        link.start()
        self._open.append(link)
        return Client("", link, inbox)

    def server(self) -> Client:
        """The server, on all that devices say."""
        return self.client(SERVER, *TOPICS.every_uplink)

    def leave(self) -> None:
        """Close every client."""
        while self._open:
            self._open.pop().close()


@contextmanager
def secure_scene(folder: Path) -> Iterator[SecureScene]:
    """A started broker; skips where there is no Mosquitto, and fails there where CI runs."""
    if SecureMosquitto.program() is None and not os.environ.get("CI"):
        pytest.skip(SecureMosquitto.install)
    made = SecureScene(folder)
    with made.broker:
        try:
            yield made
        finally:
            made.leave()
