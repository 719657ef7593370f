"""Certificates, and a real broker."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from broker_server.brokers import Broker
from devices.boards import Machine
from devices.doctor.link_checks import check_broker, check_certificates
from edge_protocol.ids import DeviceId, FleetId
from edge_protocol.transport.base import Received
from edge_protocol.transport.settings import BrokerSettings
from tests.fakes.brokers import any_broker as any_broker  # noqa: PLC0414  # a fixture
from tests.fakes.certificates import Authority
from tests.fakes.scripted_broker import PUBLISH, SUBACK, SUBSCRIBE, Link, ScriptedBroker
from tests.fakes.secure_broker import TOPICS, secure_scene
from tests.fakes.waiting import next_of

CITY, CAM = FleetId("city"), DeviceId("cam-1")
DAY_S = 86_400.0


@pytest.fixture
def settings(tmp_path: Path) -> BrokerSettings:
    """A broker with certificates that are good for a day."""
    authority = Authority()
    certificate, key = authority.issue(tmp_path / "cam", "cam-1")
    key.chmod(0o600)
    ca = authority.write(tmp_path / "ca.pem")
    return BrokerSettings(ca_file=str(ca), cert_file=str(certificate), key_file=str(key), port=9)


def _levels(settings: BrokerSettings, now_s: float | None = None) -> list[str]:
    return [finding.level for finding in check_certificates(settings, time.time() if now_s is None else now_s)]


def test_certificates_in_their_time(settings: BrokerSettings) -> None:
    """A day is less than a month: a warning; before and after their time they fail; without any there is nothing."""
    assert _levels(settings) == ["warn", "warn", "ok"]
    assert _levels(settings, time.time() + 2 * DAY_S) == ["fail", "fail", "ok"]
    assert _levels(settings, time.time() - 30 * DAY_S) == ["fail", "fail", "ok"]
    assert _levels(BrokerSettings()) == []


def test_a_certificate_of_another_device_is_a_warning(settings: BrokerSettings) -> None:
    """A board that was given a new name still has the old one's identity; a broker of another kind may take it."""
    own, other = (check_certificates(settings, time.time(), name)[1] for name in ("cam-1", "cam-2"))
    assert "this device is" not in own.says
    assert (other.level, other.says[-22:]) == ("warn", ": this device is cam-2")
    assert "enrol, with a token for cam-2" in other.fix


def test_a_key_that_others_may_read_can_be_closed(settings: BrokerSettings) -> None:
    """The fix is a command that may be run as it stands."""
    assert settings.key_file is not None
    Path(settings.key_file).chmod(0o644)
    finding = check_certificates(settings, time.time())[-1]
    assert (finding.level, finding.safe) == ("warn", True)
    assert finding.fix == f"chmod g-w,o= {settings.key_file}"


def test_files_that_are_not_there_or_do_not_belong_together_fail(settings: BrokerSettings, tmp_path: Path) -> None:
    """A missing authority, a key of another certificate, a missing password."""
    other = Authority().issue(tmp_path / "other", "cam-2")[1]
    missing = str(tmp_path / "none")
    for changed in ({"ca_file": missing}, {"key_file": str(other)}, {"username": "x", "password_file": missing}):
        wrong = msgspec.structs.replace(settings, **changed)
        assert "fail" in _levels(wrong), changed


@pytest.mark.broker
def test_a_broker_that_answers_is_ok(any_broker: Broker) -> None:
    """Connected, subscribed, how long that took, and a message that went there and back."""
    finding = check_broker(any_broker.settings, CITY, CAM)
    assert finding.level == "ok"
    assert "connected and subscribed in" in finding.says
    assert finding.says.endswith("a message came back")


@pytest.mark.broker
def test_a_broker_whose_rules_keep_devices_from_reading_what_they_write_is_ok(tmp_path: Path) -> None:
    """On our own broker a message is acknowledged, and the server hears it under the device's own name."""
    with secure_scene(tmp_path) as scene:
        server = scene.server()
        finding = check_broker(scene.settings("cam-1"), FleetId("sim"), CAM)
        assert finding.level == "ok", finding.says
        assert finding.says.endswith("a message was acknowledged")
        heard = next_of(server.inbox, Received, within_s=60)
        assert (heard.topic, heard.payload) == (TOPICS.online(CAM), b"")


@pytest.mark.parametrize(
    ("codes", "answers", "level"),
    [(b"\1\1", False, "fail"), (b"\x80\1", True, "fail"), (b"\1\1", True, "ok"), (b"\1\x80", True, "ok")],
)
def test_what_a_broker_does_with_a_message_decides(codes: bytes, answers: bool, level: str) -> None:
    """Held back, or what is told to the device denied: it fails. What the device itself says, it need not read."""

    def play(link: Link) -> None:
        link.accept()
        link.send(SUBACK, link.expect(SUBSCRIBE).body[:2] + codes)
        message = link.expect(PUBLISH)
        assert (message.payload, message.flags & 1) == (b"", 0), "empty, and not retained"
        if answers:
            link.ack(message)
        link.hold()

    with ScriptedBroker(play) as broker:
        finding = check_broker(BrokerSettings(port=broker.port), CITY, CAM, timeout_s=3.0)
    assert (finding.level, "no message is acknowledged" in finding.says) == (level, not answers)


def test_a_broker_that_does_not_answer_fails_with_a_reason() -> None:
    """Nobody listens there; a password that cannot be read is found before anyone is asked."""
    finding = check_broker(BrokerSettings(port=9), CITY, CAM, timeout_s=2.0)
    assert finding.level == "fail"
    assert "127.0.0.1:9" in finding.says
    unread = BrokerSettings(port=9, username="x", password_file="/none")
    assert "password_file" in check_broker(unread, CITY, CAM).says


def test_a_running_agent_is_not_cut_off(settings: BrokerSettings, tmp_path: Path) -> None:
    """With a certificate and the service running nothing is tried; stopped, or without a certificate, it is."""
    asked: list[tuple[str, ...]] = []

    def running(argv: tuple[str, ...]) -> str:
        asked.append(argv)
        return "active\n"

    found = check_broker(settings, CITY, CAM, machine=Machine(tmp_path, running))
    assert (found.level, found.says.split(", ")[0]) == ("warn", "mqtts://127.0.0.1:9: not tried")
    assert asked == [("systemctl", "is-active", "roadcast-agent.service")]
    stopped = Machine(tmp_path, lambda _: None)
    assert check_broker(settings, CITY, CAM, timeout_s=1, machine=stopped).level == "fail"
    open_to_all = BrokerSettings(port=9)
    assert check_broker(open_to_all, CITY, CAM, timeout_s=1, machine=Machine(tmp_path, running)).level == "fail"
