"""Mosquitto for devices that do not trust each other: mutual TLS, exact rights, limits, sessions that can be ended.

::

    mosquitto.conf  acl         what `roadcast broker config` wrote; read anew on SIGHUP, but for the listener
    dynamic-security.json       empty: the plugin is there to end sessions, and Mosquitto writes its file
    ca.pem  crl.pem             whom to trust, and who of them is revoked
    broker.key  broker.pem      what it shows to clients
    operator.key operator.pem   who may end sessions
"""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from broker_server.brokers.access import access_rules
from broker_server.brokers.base import BrokerOptions
from broker_server.brokers.mosquitto import AUTOSAVE_S, Mosquitto
from broker_server.ca.issuing import BROKER, OPERATOR
from broker_server.operators import operator
from edge_protocol.errors import ConfigError, NotReadyError
from edge_protocol.files import write_atomic
from edge_protocol.identity.files import IdentityFiles
from edge_protocol.transport.settings import BrokerSettings

FILE: Final = "mosquitto.conf"
_PLUGIN: Final = "mosquitto_dynamic_security.so"
_LIBRARIES: Final = ("/usr/lib", "/usr/local/lib")
_DENY_ALL: Final = {
    "defaultACLAccess": {
        "publishClientSend": False,
        "publishClientReceive": False,
        "subscribe": False,
        "unsubscribe": True,
    },
    "clients": [],
    "groups": [],
    "roles": [],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one client, and all of them together, may take of the broker.

    Attributes:
        connections: at once, of everybody.
        packet_bytes: largest message; a client that sends a larger one is disconnected.
        queued_messages, queued_bytes: kept for a slow client before the newest are dropped.
        keepalive_s: a silent client is gone after 1.5 times what it asked for, and may not ask for more.
    """

    connections: int = 10_000
    packet_bytes: int = 1 << 20
    queued_messages: int = 100_000
    queued_bytes: int = 64 << 20
    keepalive_s: int = 3600


def identity_of(folder: Path, name: str) -> IdentityFiles:
    """Where the broker's or the operator's certificate lies in a broker's folder."""
    return IdentityFiles(folder / "ca.pem", folder / f"{name}.pem", folder / f"{name}.key")


def configuration(folder: Path, bind: str, port: int, limits: Limits, plugin: Path) -> str:
    """Write mosquitto.conf(5).

    Args:
        folder: absolute, where the other files are.
        bind: address to listen on.
        port: TCP port.
        limits: of clients.
        plugin: the dynamic-security plugin.
    """
    return f"""\
# Written by Roadcast; `roadcast broker config` writes it anew.
listener {port} {bind}
cafile {folder}/ca.pem
certfile {folder}/broker.pem
keyfile {folder}/broker.key
crlfile {folder}/crl.pem
tls_version tlsv1.2
# A client is who its certificate says, whatever it calls itself: it cannot take another's session.
require_certificate true
use_identity_as_username true
use_username_as_clientid true
allow_anonymous false
acl_file {folder}/acl
# For ending the sessions of those who were revoked; it knows no clients, and so decides nothing else.
plugin {plugin}
plugin_opt_config_file {folder}/dynamic-security.json
max_connections {limits.connections}
max_packet_size {limits.packet_bytes}
max_keepalive {limits.keepalive_s}
max_inflight_messages 20
max_queued_messages {limits.queued_messages}
max_queued_bytes {limits.queued_bytes}
persistent_client_expiration 1h
sys_interval 0
# Keep this user; as root, Mosquitto would change to one that cannot read here.
user {operator()}
persistence true
persistence_location {folder}/
persistence_file mosquitto.db
autosave_interval {AUTOSAVE_S}
# Acknowledgements would otherwise wait up to 40 ms for company.
set_tcp_nodelay true
pid_file {folder}/mosquitto.pid
log_dest stderr
log_type error
log_type warning
log_type notice
"""


def write_configuration(folder: Path, fleet: str, bind: str, port: int, limits: Limits = Limits()) -> None:
    """Write a broker's folder, but for what an authority signs.

    Raises:
        NotReadyError: Mosquitto's plugin is not installed.
        StoreError: the disk refused.
    """
    plugin = find_plugin()
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomic(folder / "acl", access_rules(fleet).encode(), 0o600)
    write_atomic(folder / "dynamic-security.json", msgspec.json.encode(_DENY_ALL), 0o600)
    write_atomic(folder / FILE, configuration(folder, bind, port, limits, plugin).encode())


def find_plugin() -> Path:
    """Find the plugin that ends sessions; it comes with Mosquitto 2.

    Raises:
        NotReadyError: it is not there.
    """
    found = [path for place in _LIBRARIES for path in sorted(Path(place).glob(f"**/{_PLUGIN}"))]
    if not found:
        raise NotReadyError(f"{_PLUGIN} is not below {' or '.join(_LIBRARIES)}; {Mosquitto.install}")
    return found[0]


class SecureMosquitto(Mosquitto):
    """A Mosquitto on a folder that `roadcast broker config` wrote.

    Raises:
        NotReadyError: something is missing there; the message says how to get it.
        ConfigError: the configuration names no listener.
    """

    def __init__(self, folder: Path, *, start_timeout_s: float = 15.0) -> None:
        self.folder = folder.absolute()
        for name in (BROKER, OPERATOR):
            identity_of(self.folder, name).settle()
        missing = [name for name in (FILE, "acl", "ca.pem", "broker.pem", "crl.pem") if not (folder / name).exists()]
        if missing:
            told = "roadcast broker config, roadcast ca sign and roadcast ca crl write them"
            raise NotReadyError(f"{folder}: {', '.join(missing)} missing; {told}")
        listener = re.search(r"^listener (\d+) (\S+)$", (folder / FILE).read_text(encoding="utf-8"), re.MULTILINE)
        if listener is None:
            raise ConfigError(f"{folder / FILE}: no line 'listener <port> <address>'")
        port, host = int(listener[1]), listener[2]
        super().__init__(BrokerOptions(state_dir=self.folder, host=host, port=port, start_timeout_s=start_timeout_s))

    @property
    def settings(self) -> BrokerSettings:
        """How the operator reaches it."""
        own, plain = identity_of(self.folder, OPERATOR), super().settings
        return msgspec.structs.replace(
            plain, ca_file=str(own.ca), cert_file=str(own.certificate), key_file=str(own.key)
        )

    def answers(self) -> bool:
        """Tell whether a TLS server with a certificate of ours answers there; its names are not looked at."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        context.check_hostname = False
        try:
            with socket.create_connection((self.settings.host, self.port), 1.0) as link, context.wrap_socket(link):
                return True
        except OSError:
            return False

    def _configure(self) -> Path:
        return self.folder / FILE


def reload(folder: Path) -> None:
    """Have a running Mosquitto read its rules, certificates and list of revoked ones anew.

    Raises:
        NotReadyError: it does not run.
    """
    try:
        pid = int((folder / "mosquitto.pid").read_text(encoding="ascii"))
        runs = Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip() == "mosquitto"
        if runs:
            os.kill(pid, signal.SIGHUP)
    except PermissionError as error:
        raise NotReadyError(f"{folder}: this user may not signal Mosquitto; run it as Mosquitto's user") from error
    except (OSError, ValueError):
        runs = False
    if not runs:
        raise NotReadyError(f"{folder}: no Mosquitto runs there; start it: roadcast broker run --secure {folder}")
