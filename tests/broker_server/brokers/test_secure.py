"""Attacks on a real Mosquitto as configured, each by a client with a valid certificate, and that each fails.

They are those that were carried out against an ordinary configuration. A marker that an attacker may send shows that
the broker has dealt with everything before it.
"""

from __future__ import annotations

import socket
import ssl
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from broker_server.brokers.secure import SecureMosquitto, identity_of, reload
from broker_server.ca.issuing import BROKER
from edge_protocol.errors import ConfigError, NotReadyError
from edge_protocol.ids import DeviceId, TaskId
from edge_protocol.transport.base import Disconnected, LastWill, Received, Refused
from edge_protocol.transport.settings import tls_context
from tests.fakes.authority import HOST, certified, make_authority
from tests.fakes.secure_broker import TOPICS, SecureScene, secure_scene
from tests.fakes.waiting import next_of

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]
VICTIM, THIEF = DeviceId("cam-1"), DeviceId("cam-2")
TASK, HASH = TaskId("vehicle"), "0" * 64
MARK = b"marker"


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureScene]:
    """One broker for the attacks that leave it as it was."""
    with secure_scene(tmp_path_factory.mktemp("secure")) as scene:
        yield scene


@pytest.fixture
def scene(started: SecureScene) -> Iterator[SecureScene]:
    """The broker, without clients of an earlier test."""
    yield started
    started.leave()


def test_a_device_reads_nothing_that_is_not_for_it(scene: SecureScene) -> None:
    """Subscribed to everything, to another's topics and to the broker's own, a device hears its own only."""
    everything = ("#", "$SYS/#", "$CONTROL/#", "+/+/+/d/+/down/+", "+/+/+/d/+/up/+", TOPICS.online(VICTIM))
    server, victim = scene.server(), scene.client(VICTIM)
    thief = scene.client(THIEF, *everything, TOPICS.down(VICTIM, "command"))
    server.say(TOPICS.down(VICTIM, "command"), b"secret")
    victim.say(TOPICS.up(VICTIM, "state"), b"secret")
    victim.say(TOPICS.online(VICTIM), b"secret")
    server.hear(b"secret")
    server.say(TOPICS.down(THIEF, "command"), MARK)
    heard = thief.hear(MARK)
    assert [event.topic for event in heard if event.payload != MARK] == []


def test_a_thief_of_shared_subscriptions_takes_nothing(scene: SecureScene) -> None:
    """Three sessions in a shared group on the server's topics get none of 100 messages, and the server all."""
    thieves = [
        scene.client(f"thief-{i}", *(f"$share/workers/{pattern}" for pattern in TOPICS.every_uplink)) for i in range(3)
    ]
    server, victim = scene.server(), scene.client(VICTIM)
    sent = [b"%d" % i for i in range(100)]
    for payload in sent:
        victim.say(TOPICS.up(VICTIM, "result"), payload)
    victim.say(TOPICS.up(VICTIM, "result"), MARK)
    assert [event.payload for event in server.hear(MARK)] == sent
    assert [event for thief in thieves for event in thief.events() if isinstance(event, Received)] == []


FORGED = (
    TOPICS.up(VICTIM, "birth"),
    TOPICS.up(VICTIM, "knowledge"),
    TOPICS.online(VICTIM),
    TOPICS.down(VICTIM, "command"),
    TOPICS.release(TASK, VICTIM),
    TOPICS.release(TASK),
    TOPICS.metadata("timestamp"),
    TOPICS.round(TASK),
    TOPICS.chunk(HASH, 0),
    "rc/v1/other/all/release/vehicle",
    "$SYS/broker/version",
    "$CONTROL/dynamic-security/v1",
)


def test_a_device_forges_nothing(scene: SecureScene) -> None:
    """Another's uplink, releases, rounds and chunks, retained or not, reach nobody, now or later."""
    server = scene.server()
    victim = scene.client(VICTIM, TOPICS.every_downlink(VICTIM), *TOPICS.desired(VICTIM, TASK), TOPICS.chunk(HASH, 0))
    thief = scene.client(THIEF)
    for topic in FORGED:
        for retain in (True, False):
            thief.say(topic, b"forged", retain=retain)
    thief.say(TOPICS.up(THIEF, "state"), MARK)
    assert server.hear(MARK) == []
    server.say(TOPICS.down(VICTIM, "ack"), MARK)
    assert victim.hear(MARK) == []
    late = scene.client("cam-3", *TOPICS.desired(DeviceId("cam-3"), TASK), TOPICS.chunk(HASH, 0))
    server.say(TOPICS.release(TASK), MARK)
    assert late.hear(MARK) == []


def test_a_last_will_says_no_more_than_its_client_may(scene: SecureScene) -> None:
    """The will of a client that is cut off is not published where the client may not publish."""
    server = scene.server()
    scene.client(THIEF, will=LastWill(TOPICS.online(VICTIM), b"forged"))
    second = scene.client(THIEF, will=LastWill(TOPICS.online(THIEF), b"own"))  # takes the first one's session over
    second.say(TOPICS.up(THIEF, "state"), MARK)
    assert [event.payload for event in server.hear(MARK)] in ([], [b"own"])


def test_a_device_fills_the_broker_with_no_topics_of_its_own(scene: SecureScene) -> None:
    """Retained messages below a device's own name stay on its few leaves; no other is kept."""
    thief = scene.client(THIEF)
    for topic in (f"rc/v1/sim/d/{THIEF}/{tail}" for tail in ("x", "up", "up/x", "up/state/x", "release/x", "down/ack")):
        thief.say(topic, b"forged", retain=True)
    thief.say(TOPICS.up(THIEF, "state"), MARK, retain=True)
    late = scene.client("server", "#", *TOPICS.every_uplink)
    heard = late.hear(MARK)
    assert [event for event in heard if event.payload == b"forged"] == []
    thief.say(TOPICS.up(THIEF, "state"), b"", retain=True)


def test_a_client_id_takes_no_session_over(scene: SecureScene) -> None:
    """A client that calls itself by another's name is still itself: the other's link stays up, under any name."""
    victim = scene.client(VICTIM, TOPICS.every_downlink(VICTIM), client_id=VICTIM)
    impostor = scene.client(THIEF, TOPICS.every_downlink(VICTIM), client_id=VICTIM)
    server = scene.server()
    server.say(TOPICS.down(VICTIM, "command"), MARK)
    assert victim.hear(MARK) == []
    assert not any(isinstance(event, Disconnected) for event in victim.events())
    assert [event for event in impostor.events() if isinstance(event, Received)] == []


def test_an_oversized_message_ends_its_sender_only(scene: SecureScene) -> None:
    """Two megabytes disconnect their sender; the victim and the broker go on."""
    server, victim, thief = scene.server(), scene.client(VICTIM), scene.client(THIEF)
    thief.say(TOPICS.up(THIEF, "state"), bytes(2 << 20))
    next_of(thief.inbox, Disconnected)
    victim.say(TOPICS.up(VICTIM, "state"), MARK)
    assert server.hear(MARK) == []
    assert victim.link.connected


def test_the_door_is_shut(scene: SecureScene, tmp_path: Path) -> None:
    """No certificate, one of another authority, the broker's own, plain TCP: none of them is let in."""
    other = certified(make_authority(tmp_path / "ca", now=time.time()), tmp_path / "x", VICTIM, time.time())
    good, broker = scene.settings(VICTIM), identity_of(scene.broker_folder, BROKER)
    change = msgspec.structs.replace
    doors = {
        "without a certificate": change(good, cert_file=None, key_file=None),
        "of a stranger": change(good, cert_file=str(other.certificate), key_file=str(other.key)),
        "of the broker": change(good, cert_file=str(broker.certificate), key_file=str(broker.key)),
        "plain": change(good, ca_file=None, cert_file=None, key_file=None),
    }
    for name, settings in doors.items():
        client = scene.unconnected(settings, *TOPICS.every_uplink)
        assert next_of(client.inbox, Refused).reason == "connect-failed", name
        client.link.close()
        assert client.link._generation == 0


def test_old_tls_is_refused(scene: SecureScene) -> None:
    """A client that speaks TLS 1.1 at most is not let in; the same client with TLS 1.2 is."""
    context = tls_context(scene.settings(VICTIM))
    assert context is not None
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for version, welcome in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)):
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = version
            try:
                with (
                    socket.create_connection((HOST, scene.broker.port), 20) as link,
                    context.wrap_socket(link, server_hostname=HOST) as tls,
                ):
                    assert tls.version() == "TLSv1.2"
                    assert welcome
            except ssl.SSLError:
                assert not welcome


def test_a_device_is_no_broker(scene: SecureScene) -> None:
    """A device's certificate, shown as a broker's, is refused by the other devices."""
    own, trusting = scene.settings(THIEF), tls_context(scene.settings(VICTIM))
    assert trusting is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(own.cert_file), own.key_file)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    shown = context.wrap_bio(to_server, to_client, server_side=True)
    asking = ssl.SSLContext.wrap_bio(trusting, to_client, to_server, server_hostname=HOST)
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        _shake_hands(asking, shown)


def _shake_hands(*sides: ssl.SSLObject) -> None:
    for side in sides * 4:
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    """An empty folder, one without a listener, and a broker that does not run are errors that say what to do."""
    with pytest.raises(NotReadyError, match="broker config"):
        SecureMosquitto(tmp_path)
    for name in ("acl", "ca.pem", "broker.pem", "crl.pem", "mosquitto.conf"):
        (tmp_path / name).write_text("")
    with pytest.raises(ConfigError, match="no line 'listener"):
        SecureMosquitto(tmp_path)
    (tmp_path / "mosquitto.pid").write_text("1\n")
    with pytest.raises(NotReadyError, match="--secure"):
        reload(tmp_path)
