"""Ends sessions at a broker: tells Mosquitto's dynamic-security plugin to disconnect by name. Owns no decision.

A name is made a client of the plugin, disabled, which disconnects it, and forgotten again: the plugin keeps nothing,
and whether the name may come back is for its certificate to say.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, Queue
from typing import Any, Final

import msgspec
from cryptography import x509

from broker_server.brokers.access import CONTROL
from broker_server.brokers.secure import SecureMosquitto, reload
from broker_server.ca.folder import CertificateAuthority
from broker_server.ca.issuing import OPERATOR
from broker_server.periods import NEVER, over
from edge_protocol.errors import ConfigError, RoadcastError, TransportError
from edge_protocol.files import write_atomic
from edge_protocol.transport.base import Connected, Inbox, Received, Refused
from edge_protocol.transport.mqtt import mqtt_transport
from edge_protocol.transport.settings import BrokerSettings

BATCH: Final = 200
TIMEOUT_S: Final = 20.0
EVERY_S: Final = 3600.0

log = logging.getLogger(__name__)


def refresh(folder: Path, settings: BrokerSettings, authority: CertificateAuthority, now: float) -> list[str]:
    """Give a running broker a new list of revoked certificates, and end every session that an ended certificate opened.

    Each certificate's sessions are ended once; when the broker cannot be reached, the next call does it.

    Args:
        folder: the broker's.
        settings: how the operator reaches it.
        authority: whose certificates.
        now: seconds since 1970.

    Returns:
        Names whose sessions were ended; a device that has another certificate is back at once.

    Raises:
        NotReadyError: the broker does not run.
        TransportError: it cannot be reached.
        StoreError: the disk refused.
    """
    ended = authority.ledger.ended(now)
    take_list(folder, authority.revocations(now))
    names = sorted({each.name for each in ended})
    end_sessions(settings, names)
    authority.ledger.dropped([each.serial for each in ended], now)
    return names


def take_list(folder: Path, revoked: bytes) -> None:
    """Give a running broker a new list of revoked certificates, PEM.

    Raises:
        ConfigError: it is none; the broker keeps the one it has.
        NotReadyError: the broker does not run.
        StoreError: the disk refused.
    """
    try:
        x509.load_pem_x509_crl(revoked)
    except ValueError as error:
        raise ConfigError(f"list of revoked certificates: need what `roadcast ca crl` writes: {error}") from error
    write_atomic(folder / "crl.pem", revoked)
    reload(folder)


class Refresher:
    """Refreshes a broker when a certificate has ended, and every hour for the list's own sake.

    When the clock was set back it does so at once: a list from the future locks everybody out.

    Args:
        folder: the broker's.
        authority: whose certificates.
    """

    def __init__(self, folder: Path, authority: CertificateAuthority) -> None:
        self._folder, self._authority, self._done_s = folder, authority, NEVER

    def step(self, now: float) -> list[str]:
        """Refresh when it is due; return whose sessions were ended. What fails is logged and tried again."""
        try:
            if not over(self._done_s, EVERY_S, now) and not self._authority.ledger.ended(now):
                return []
            ended = refresh(self._folder, SecureMosquitto(self._folder).settings, self._authority, now)
        except RoadcastError as error:
            log.warning("the broker was not refreshed: %s", error)
            return []
        self._done_s = now
        log.info("broker refreshed; sessions ended: %s", ", ".join(ended) or "none")
        return ended


def end_sessions(settings: BrokerSettings, names: Sequence[str], timeout_s: float = TIMEOUT_S) -> None:
    """Disconnect whoever is connected under these names.

    Raises:
        TransportError: the broker did not do it in time.
    """
    if not names:
        return
    inbox: Inbox = Queue(100)
    link = mqtt_transport(settings, OPERATOR, inbox)
    link.subscribe([f"{CONTROL}/response"])
    link.start()
    try:
        deadline = time.monotonic() + timeout_s
        _await(inbox, Connected, deadline)
        for at in range(0, len(names), BATCH):
            commands = [
                {"command": command, "username": name}
                for name in names[at : at + BATCH]
                for command in ("createClient", "disableClient", "deleteClient")
            ]
            link.publish(CONTROL, msgspec.json.encode({"commands": commands}))
            _check(_await(inbox, Received, deadline).payload, len(commands))
    finally:
        link.close()


def _await(inbox: Inbox, kind: Any, deadline: float) -> Any:  # noqa: ANN401  an event of that kind
    why = "no answer"
    while (left := deadline - time.monotonic()) > 0:
        try:
            event = inbox.get(timeout=left)
        except Empty:
            break
        if isinstance(event, kind):
            return event
        if isinstance(event, Refused):
            why = event.detail
    raise TransportError(f"the broker did not end sessions: {why}; is it the one of `roadcast broker config`?")


def _check(payload: bytes, count: int) -> None:
    try:
        answers = msgspec.json.decode(payload)["responses"]
        failed = [a["error"] for a in answers if a["command"] == "disableClient" and "error" in a]
        whole = len(answers) == count
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise TransportError(f"the broker's answer on ending sessions cannot be read: {error}") from error
    if failed or not whole:
        raise TransportError(f"the broker did not end every session: {failed[:3]}")
