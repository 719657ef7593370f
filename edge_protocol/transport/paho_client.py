"""One paho client for one connection; owns no callback that hears of messages. Loaded when a connection begins."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from paho.mqtt.client import Client, error_string
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge_protocol.transport.base import LastWill
from edge_protocol.transport.settings import BrokerSettings
from edge_protocol.transport.turns import send_at_once

__all__ = ["error_string", "new_client"]


def new_client(
    settings: BrokerSettings,
    client_id: str,
    password: str | None,
    tls: ssl.SSLContext | None,
    will: LastWill | None,
    ring: Callable[..., None],
) -> Client:
    """Make a client with a clean session that does not connect again by itself; see `MqttTransport`.

    `ring` is called when another thread has queued a packet for the network thread to write.
    """
    client = Client(
        CallbackAPIVersion.VERSION2,
        client_id,
        clean_session=True,
        protocol=MQTTProtocolVersion.MQTTv311,
        reconnect_on_failure=False,
    )
    client.max_inflight_messages_set(settings.window)
    # Without this, paho writes to the socket from whichever thread publishes, beside its own loop.
    client.on_socket_register_write = ring
    client.on_socket_open = send_at_once
    if settings.username is not None:
        client.username_pw_set(settings.username, password)
    if tls is not None:
        client.tls_set_context(tls)
    if will is not None:
        client.will_set(will.topic, will.payload, qos=1, retain=True)
    return client
