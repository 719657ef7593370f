"""Sessions on a real Mosquitto end with the certificate that opened them, and by nobody's word but the operator's."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_server.brokers.secure import identity_of, reload
from broker_server.brokers.sessions import Refresher, end_sessions, refresh, take_list
from broker_server.ca.folder import CaPolicy, CertificateAuthority
from broker_server.ca.issuing import BROKER
from edge_protocol.errors import ConfigError, TransportError
from edge_protocol.ids import DeviceId
from edge_protocol.transport.base import Disconnected, Refused
from edge_protocol.transport.settings import tls_context
from tests.fakes.authority import HOST, certified
from tests.fakes.secure_broker import TOPICS, Client, SecureScene, secure_scene
from tests.fakes.waiting import next_of, wait_for

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]
VICTIM, THIEF = DeviceId("cam-1"), DeviceId("cam-2")
MARK = b"marker"
LIFE_S = 20
"""Of a certificate that expires in a test; long enough to connect with it on a busy machine."""


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureScene]:
    """One broker for all of them."""
    with secure_scene(tmp_path_factory.mktemp("secure")) as scene:
        yield scene


@pytest.fixture
def scene(started: SecureScene) -> Iterator[SecureScene]:
    """The broker, without clients of an earlier test."""
    yield started
    started.leave()


def test_a_revoked_device_is_out_while_it_is_connected(scene: SecureScene) -> None:
    """Revoked and refreshed: the live session ends, its name cannot come back, and the others stay."""
    server, victim, thief = scene.server(), scene.client(VICTIM), scene.client("stolen")
    thief.say(TOPICS.up(DeviceId("stolen"), "state"), b"before")
    server.hear(b"before")
    scene.authority.ledger.revoke("stolen", time.time(), "stolen")
    operator = scene.broker.settings
    assert refresh(scene.broker_folder, operator, scene.authority, time.time()) == ["stolen"]
    next_of(thief.inbox, Disconnected)
    assert next_of(thief.inbox, Refused).reason == "connect-failed"
    assert not thief.link.connected
    assert refresh(scene.broker_folder, operator, scene.authority, time.time()) == []
    victim.say(TOPICS.up(VICTIM, "state"), MARK)
    assert server.hear(MARK) == []
    assert not any(isinstance(event, Disconnected) for event in (*victim.events(), *server.events()))


def test_an_expired_session_ends_and_a_renewed_one_comes_back(scene: SecureScene) -> None:
    """At a refresh after its certificate's end a device is out; one that was renewed meanwhile is back at once."""
    brief = CertificateAuthority(
        scene.authority.folder, CaPolicy(fleet="sim", device_days=LIFE_S / 86_400), scene.authority.issuer
    )
    clients = {}
    for name in ("late", "renewed"):
        ends = time.time() + LIFE_S
        certified(brief, scene.folder / name, name, time.time())
        clients[name] = scene.client(name)
    certified(scene.authority, scene.folder / "renewed", "renewed", time.time())
    wait_for(lambda: time.time() > ends + 1, "end of the certificates", within_s=60)
    ended = refresh(scene.broker_folder, scene.broker.settings, scene.authority, time.time())
    assert set(ended) >= {"late", "renewed"}
    for client in clients.values():
        next_of(client.inbox, Disconnected)
    wait_for(lambda: clients["renewed"].link.connected, "the renewed device")
    assert next_of(clients["late"].inbox, Refused).reason == "connect-failed"
    assert not clients["late"].link.connected


def test_a_service_that_watches_the_ledger_needs_no_command(scene: SecureScene, tmp_path: Path) -> None:
    """The first look renews the list, the next does nothing, a revocation ends the session; one that is away waits."""
    thief, refresher = scene.client("watched"), Refresher(scene.broker_folder, scene.authority)
    refresher.step(time.time())
    before = (scene.broker_folder / "crl.pem").read_bytes()
    assert refresher.step(time.time()) == []
    assert (scene.broker_folder / "crl.pem").read_bytes() == before
    scene.authority.ledger.revoke("watched", time.time(), "stolen")
    assert Refresher(tmp_path, scene.authority).step(time.time()) == []
    assert refresher.step(time.time()) == ["watched"]
    next_of(thief.inbox, Disconnected)


def test_a_clock_that_was_ahead_locks_nobody_out(scene: SecureScene) -> None:
    """Refreshed by a clock two days ahead, a newcomer is refused; the next look with a right one lets it in."""
    refresher = Refresher(scene.broker_folder, scene.authority)

    def refused() -> Client | None:
        """A newcomer that the broker, once it has read the list again, turns away."""
        client = scene.unconnected(scene.settings("newcomer"))
        answer = client.inbox.get(timeout=60)
        if isinstance(answer, Refused):
            assert answer.reason == "connect-failed"
            return client
        client.link.close()
        return None

    refresher.step(time.time() + 2 * 86_400)
    try:
        client = wait_for(refused, "a newcomer that is refused", every_s=0.2)
    finally:
        refresher.step(time.time())
    assert client is not None
    wait_for(lambda: client.link.connected, "the newcomer", within_s=60)


def test_the_broker_s_own_certificate_is_replaced_under_way(scene: SecureScene) -> None:
    """After a reload new connections see the new certificate, and those that are up stay."""

    def shown() -> bytes | None:
        context = tls_context(scene.settings("looks"))
        assert context is not None
        address = HOST, scene.broker.port
        with socket.create_connection(address, 20) as link, context.wrap_socket(link, server_hostname=HOST) as tls:
            return tls.getpeercert(binary_form=True)

    victim, before = scene.client(VICTIM), shown()
    files = identity_of(scene.broker_folder, BROKER)
    chain = scene.authority.sign(files.request(BROKER), BROKER, [HOST], time.time())
    files.install(chain, scene.authority.anchors, BROKER)
    reload(scene.broker_folder)
    wait_for(lambda: shown() != before, "the new certificate")
    assert victim.link.connected


def test_a_device_ends_nobodys_session(scene: SecureScene) -> None:
    """The topic that ends sessions is the operator's: a device that writes there gets no answer, the victim stays."""
    victim = scene.client(VICTIM)
    with pytest.raises(TransportError, match="no answer"):
        end_sessions(scene.settings(THIEF), [VICTIM], timeout_s=3)
    assert victim.link.connected
    assert not any(isinstance(event, Disconnected) for event in victim.events())


def test_what_is_no_list_is_not_taken(scene: SecureScene) -> None:
    """A list that cannot be read would lock everybody out; the broker keeps its own."""
    before = (scene.broker_folder / "crl.pem").read_bytes()
    with pytest.raises(ConfigError, match="ca crl"):
        take_list(scene.broker_folder, b"junk")
    assert (scene.broker_folder / "crl.pem").read_bytes() == before
    end_sessions(scene.broker.settings, [])
