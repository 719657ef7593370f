"""One paho client for one connection; owns no callback that hears of messages. Loaded when a connection begins."""

from __future__ import annotations

import socket
import ssl
from typing import Any

from paho.mqtt.client import Client, error_string
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge_protocol.transport.base import LastWill
from edge_protocol.transport.settings import BrokerSettings

__all__ = ["error_string", "new_client"]


def new_client(
    settings: BrokerSettings, client_id: str, password: str | None, tls: ssl.SSLContext | None, will: LastWill | None
) -> Client:
    """Make a client with a clean session that does not connect again by itself; see `MqttTransport`."""
    client = Client(
        CallbackAPIVersion.VERSION2,
        client_id,
        clean_session=True,
        protocol=MQTTProtocolVersion.MQTTv311,
        reconnect_on_failure=False,
    )
    client.max_inflight_messages_set(settings.window)
    # Without this, paho writes to the socket from whichever thread publishes, beside its own loop.
    client.on_socket_register_write = lambda *_: None
    client.on_socket_open = _send_at_once
    if settings.username is not None:
        client.username_pw_set(settings.username, password)
    if tls is not None:
        client.tls_set_context(tls)
    if will is not None:
        client.will_set(will.topic, will.payload, qos=1, retain=True)
    return client


def _send_at_once(_client: Client, _userdata: Any, link: Any) -> None:  # noqa: ANN401  as paho declares it
    """Turn Nagle's algorithm off: a small message would wait up to 40 ms for the acknowledgement of the one before."""
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
