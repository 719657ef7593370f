"""The way to the broker: certificates that are good, and a connection that is made. Owns no setting."""

from __future__ import annotations

import shlex
import stat
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from queue import Empty, Queue
from typing import Final

import msgspec

from devices.boards.machine import Machine
from devices.doctor.round_trip import round_trip
from devices.findings import Finding
from devices.provision.units import AGENT_UNIT
from edge_protocol.errors import ConfigError
from edge_protocol.ids import DeviceId, FleetId
from edge_protocol.topics import Topics
from edge_protocol.transport.base import Connected, Inbox, Refused
from edge_protocol.transport.mqtt import MqttTransport
from edge_protocol.transport.settings import BrokerSettings, read_password, tls_context

_SOON: Final = timedelta(days=30)
_TIMEOUT_S: Final = 15.0
_TEMPORARY: Final = "connect-failed"


def check_certificates(settings: BrokerSettings, now_s: float, device: str = "") -> tuple[Finding, ...]:
    """Certificates of the configuration: readable, in their time, with their key, and the key not for everybody.

    Args:
        settings: of the broker.
        now_s: seconds since 1970.
        device: whose certificate it should be; "" where that says nothing.
    """
    found: list[Finding] = []
    now = datetime.fromtimestamp(now_s, timezone.utc)
    for name, file in (("ca_file", settings.ca_file), ("cert_file", settings.cert_file)):
        if file is not None:
            found.append(_certificate(name, Path(file), now, device if name == "cert_file" else ""))
    try:
        tls_context(settings)
    except ConfigError as error:
        found.append(Finding("certificates", "fail", str(error), "check that key_file belongs to cert_file"))
    return (*found, *_secrets(settings))


def check_broker(
    settings: BrokerSettings,
    fleet: FleetId,
    device: DeviceId,
    timeout_s: float = _TIMEOUT_S,
    machine: Machine | None = None,
) -> Finding:
    """Connect under another name than the agent's, subscribe to the device's own topics, send a message, and leave.

    A broker that names clients by their certificate would end a running agent's session for that: it is then left.

    Args:
        settings: of the broker.
        fleet: of the device.
        device: its name.
        timeout_s: how long to try.
        machine: the board, this one when None.
    """
    where = f"{'mqtts' if settings.ca_file else 'mqtt'}://{settings.host}:{settings.port}"
    here = machine or Machine()
    if settings.cert_file is not None and here.run("systemctl", "is-active", AGENT_UNIT) == "active":
        says = f"{where}: not tried, for it would cut the running agent off; the server's `devices list` shows its link"
        return Finding("broker", "warn", says, f"sudo systemctl stop {AGENT_UNIT}  # to try it")
    inbox: Inbox = Queue(100)
    try:
        password, tls = read_password(settings), tls_context(settings)
    except ConfigError as error:
        return Finding("broker", "fail", str(error), "mend the broker section of the configuration")
    settings, topics = msgspec.structs.replace(settings, window=1), Topics(fleet)
    transport = MqttTransport(settings, f"{fleet}-{device}-doctor", inbox, password=password, tls=tls)
    transport.subscribe([topics.every_downlink(device), topics.online(device)])
    begun, message = time.monotonic(), "lost"
    try:
        transport.start()
        events = list(_until_connected(inbox, begun + timeout_s))
        took = time.monotonic() - begun
        if transport.connected:
            message = round_trip(transport, inbox, topics.online(device), timeout_s)
    finally:
        transport.close()
    return _verdict(where, [event for event in events if not _is_own(event, topics.online(device))], took, message)


def _is_own(event: object, topic: str) -> bool:
    """Whether a broker does not let the device read what it writes: ours does not either."""
    return isinstance(event, Refused) and event.reason == "subscription-denied" and repr(topic) in event.detail


def _until_connected(inbox: Inbox, deadline: float) -> Iterator[object]:
    while (left := deadline - time.monotonic()) > 0:
        try:
            event = inbox.get(timeout=left)
        except Empty:
            return
        yield event
        if isinstance(event, Connected):
            return


def _verdict(where: str, events: list[object], seconds: float, message: str) -> Finding:
    refusals = [event for event in events if isinstance(event, Refused)]
    denied = [refusal for refusal in refusals if refusal.reason != _TEMPORARY]
    if not any(isinstance(event, Connected) for event in events):
        why = refusals[-1].detail if refusals else "no answer"
        fix = "check host, port, firewall, certificates and the clock; on the broker's machine: roadcast broker run"
        return Finding("broker", "fail", f"{where}: {why}", fix)
    if denied:
        return Finding("broker", "fail", f"{where}: {denied[0].detail}", "let the device read its own topics")
    says = f"{where}: connected and subscribed in {seconds * 1000:.0f} ms"
    if message == "lost":
        return Finding("broker", "fail", f"{says}, but no message is acknowledged", "look into the broker's log")
    return Finding("broker", "ok", f"{says}; a message {'was ' * (message == 'acknowledged')}{message}")


def _certificate(name: str, file: Path, now: datetime, device: str) -> Finding:
    from cryptography import x509  # noqa: PLC0415  # most fleets start without certificates

    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
    except (OSError, ValueError) as error:
        return Finding(
            "certificates", "fail", f"{name} {file}: {error}", "a PEM file that begins with BEGIN CERTIFICATE"
        )
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    said = f"{name} of {certificate.subject.rfc4514_string() or 'nobody'}, until {ends:%Y-%m-%d}"
    if now < begins:
        return Finding("certificates", "fail", f"{said}: not valid before {begins:%Y-%m-%d}", "set the clock")
    if now > ends:
        return Finding("certificates", "fail", f"{said}: expired", "ask the authority for a new one")
    if device and f"CN={device}" not in certificate.subject.rfc4514_string().split(","):
        fix = f"roadcast client enrol, with a token for {device}; a broker that goes by other names may take it"
        return Finding("certificates", "warn", f"{said}: this device is {device}", fix)
    if ends - now < _SOON:
        return Finding(
            "certificates", "warn", f"{said}: {(ends - now).days} days left", "ask the authority for a new one"
        )
    return Finding("certificates", "ok", said)


def _secrets(settings: BrokerSettings) -> Iterator[Finding]:
    for name, file in (("key_file", settings.key_file), ("password_file", settings.password_file)):
        if file is None:
            continue
        try:
            open_to_others = Path(file).stat().st_mode & (stat.S_IWGRP | stat.S_IRWXO)
        except OSError as error:
            yield Finding("secrets", "fail", f"{name} {file}: {error.strerror}", f"put it there: {file}")
            continue
        if open_to_others:
            yield Finding(
                "secrets",
                "warn",
                f"{name} {file}: others may read it",
                shlex.join(["chmod", "g-w,o=", file]),
                safe=True,
            )
        else:
            yield Finding("secrets", "ok", f"{name}: for its owner and group only")
