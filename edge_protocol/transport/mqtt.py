"""A `Transport` on MQTT 3.1.1 through paho. Owns the link, nothing that must not be lost.

Every connection is a new paho client with a clean session, so neither side replays anything: what was not acknowledged
is sent again by the sender's outbox, and the receiver drops what it has seen (same message id). Messages may come twice
and out of order. Callbacks only enqueue. The network thread supervises itself: whatever escapes from a connection is
reported as `Refused` and ends in a new connection.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from random import Random
from time import monotonic
from typing import TYPE_CHECKING, Final

from edge_protocol.errors import LocalProtocolError
from edge_protocol.transport.backoff import pause_s
from edge_protocol.transport.base import Connected, Disconnected, Inbox, LastWill, Received, Refused, Traffic
from edge_protocol.transport.delivery import PATIENCE_S, Delivery
from edge_protocol.transport.filters import check_filter
from edge_protocol.transport.in_flight import InFlight
from edge_protocol.transport.settings import BrokerSettings, read_password, tls_context
from edge_protocol.transport.turns import Bell, turn

if TYPE_CHECKING:
    import ssl

    from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
    from paho.mqtt.reasoncodes import ReasonCode

SUBSCRIBE_BATCH: Final = 8
"""Filters in one SUBSCRIBE packet; hosted brokers take no more than eight."""
_LEAVE_S: Final = 2.0
_JOIN_S: Final = 30.0
_EARLY: Final = 1000
_SUCCESS: Final = 0


class MqttTransport:
    """One connection to a broker, kept up until `close`.

    Args:
        settings: where the broker is.
        client_id: unique in the fleet; the broker disconnects an older client of the same name.
        inbox: where events go; when it stays full, messages are dropped and counted as ``inbox-full``.
        will: what the broker publishes, retained, when the link dies.
        password: sent with `settings.username`.
        tls: how to check the broker's certificate; None speaks plain TCP.
        patience_s: how long a full inbox holds the link up before messages are dropped.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        client_id: str,
        inbox: Inbox,
        will: LastWill | None = None,
        *,
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.traffic = Traffic()
        self._settings, self._client_id, self._will = settings, client_id, will
        self._password, self._tls = password, tls
        self._delivery = Delivery(inbox, patience_s)  # used by the network thread only
        self._random = Random()  # seeded by the operating system: no two devices draw the same pauses
        self._first_pause_s = self._random.uniform(0.5, 1.5)
        # One lock for all below. Never publish while holding it: paho calls on_publish with its own lock held.
        self._lock = threading.Lock()
        self._filters: dict[str, None] = {}
        self._client: Client | None = None
        self._in_flight = InFlight(settings.max_packet_bytes)
        self._generation = 0
        self._awaited: dict[int, tuple[str, ...]] = {}
        # Two for the network thread only.
        self._why_down = ""
        self._renewing: set[int] = set()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def connected(self) -> bool:
        """Whether the link is up now."""
        return self._client is not None

    @property
    def ready(self) -> bool:
        """Whether another publish would be taken now."""
        return self._client is not None and len(self._in_flight) < self._settings.window

    def start(self) -> None:
        """Begin connecting; safe to call again."""
        with self._lock:
            if not self._closing.is_set() and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._run, name=f"mqtt-{self._client_id}", daemon=True)
                self._thread.start()

    def check(self, topic: str, payload: bytes) -> None:
        """Refuse what is larger than the settings allow, or than the broker was seen to take."""
        size = len(topic.encode()) + len(payload)
        if refusal := self._in_flight.refusal(size, monotonic()):
            raise LocalProtocolError("oversized", f"message of {size} bytes on {topic!r} {refusal}")

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> bool:
        """Hand over a message at QoS 1; False when the link is down or `window` messages are unacknowledged.

        Raises:
            LocalProtocolError: ``oversized`` or ``bad-topic``.
        """
        self.check(topic, payload)
        size = len(topic.encode()) + len(payload)
        with self._lock:
            client = self._client
            if client is None or len(self._in_flight) >= self._settings.window:
                return False
            self._in_flight.sent(size)
        try:
            taken = client.publish(topic, payload, qos=1, retain=retain).rc == _SUCCESS
        except ValueError as error:
            self._release(client, self._in_flight.not_sent)
            raise LocalProtocolError("bad-topic", f"cannot publish on {topic[:120]!r}: {error}") from error
        if not taken:
            self._release(client, self._in_flight.not_sent)
            return False
        with self._lock:
            self.traffic.bytes_up += size
            self.traffic.messages_up += 1
        return True

    def subscribe(self, filters: Iterable[str]) -> None:
        """Add filters; they are renewed on each connection until unsubscribed.

        Raises:
            LocalProtocolError: ``bad-filter``.
        """
        wanted = [check_filter(pattern) for pattern in filters]
        with self._lock:
            self._filters.update(dict.fromkeys(wanted))
            if self._client is not None:
                self._send_subscribe(self._client, wanted)

    def unsubscribe(self, filters: Iterable[str]) -> None:
        """Remove filters."""
        with self._lock:
            gone = [pattern for pattern in dict.fromkeys(filters) if pattern in self._filters]
            for pattern in gone:
                del self._filters[pattern]
            if self._client is not None:
                for at in range(0, len(gone), SUBSCRIBE_BATCH):
                    self._client.unsubscribe(gone[at : at + SUBSCRIBE_BATCH])

    def close(self) -> None:
        """Disconnect in order and end the network thread. Safe to call twice."""
        self._closing.set()
        with self._lock:
            if self._client is not None:
                self._client.disconnect()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        attempt = 0
        while not self._closing.is_set():
            before, self._why_down = self._generation, ""
            try:
                reason = self._connection()
            except BaseException as error:  # noqa: BLE001  nothing may end this thread but `close`
                reason = f"the network loop failed: {error!r}"
                self._delivery.owe(Refused("network-thread", f"{reason}; connecting again"))
            attempt = 0 if self._generation > before else attempt + 1
            self._report_end(reason, was_up=attempt == 0)
            self._closing.wait(pause_s(attempt, self._first_pause_s, self._settings.reconnect_max_s, self._random))

    def _report_end(self, reason: str, *, was_up: bool) -> None:
        with self._lock:
            self._client = None
            found = "" if self._closing.is_set() else self._in_flight.lost(monotonic())
        if found:
            self._delivery.owe(Refused("packet-limit", found))
        if was_up:
            self._delivery.put(Disconnected(reason))
        elif not self._closing.is_set():
            self._delivery.put(Refused("connect-failed", f"{self._settings.host}:{self._settings.port}: {reason}"))

    def _connection(self) -> str:
        """Hold one connection; return why it ended."""
        from edge_protocol.transport import paho_client  # noqa: PLC0415  # a first frame is answered without paho

        login = (self._settings, self._client_id, self._password, self._tls)
        with closing(Bell()) as bell:
            client = self._listen(paho_client.new_client(*login, self._will, bell.ring))
            try:
                client.connect(self._settings.host, self._settings.port, self._settings.keepalive_s)
            except (OSError, ValueError) as error:
                return str(error) or repr(error)
            code = self._hold(client, bell)
        return "closed" if self._closing.is_set() else self._why_down or paho_client.error_string(code)

    def _hold(self, client: Client, bell: Bell) -> int:
        """Turn until the connection ends; return paho's code."""
        code, leave_by = _SUCCESS, float("inf")
        while code == _SUCCESS and monotonic() < leave_by:
            code = turn(client, bell, lambda: self._delivery.deliver(_EARLY if self._renewing else 0))
            if self._closing.is_set() and leave_by == float("inf"):
                leave_by = monotonic() + _LEAVE_S
                client.disconnect()
        return code

    def _listen(self, client: Client) -> Client:
        client.on_connect = self._guarded(self._on_connect)
        client.on_disconnect = self._guarded(self._on_disconnect)
        client.on_publish = self._guarded(lambda client, *_: self._release(client, self._in_flight.acknowledged))
        client.on_subscribe = self._guarded(self._on_subscribe)
        client.on_message = self._guarded(self._on_message)
        return client

    def _guarded(self, callback: Callable[..., None]) -> Callable[..., None]:
        """Wrap a callback: an exception that reached paho would end the network loop."""

        def guarded(client: Client, _userdata: object, *rest: object) -> None:
            try:
                callback(client, *rest)
            except Exception as error:  # noqa: BLE001  whatever it is, the link must outlive it
                self._delivery.put(Refused("callback-failed", repr(error)))

        return guarded

    def _on_connect(self, client: Client, _: ConnectFlags, code: ReasonCode, *_rest: object) -> None:
        if code.is_failure:
            self._why_down = f"the broker refused the connection: {code}"
            return
        with self._lock:
            self._client = client
            self._awaited.clear()
            self._send_subscribe(client, list(self._filters))
            self._renewing = set(self._awaited)
        self._delivery.forget()
        self._announce_once_renewed()

    def _announce_once_renewed(self) -> None:
        """Say `Connected` when the broker has answered for every filter; what came meanwhile is delivered after it."""
        if not self._renewing:
            self._generation += 1
            self._delivery.put(Connected(self._generation))

    def _on_disconnect(self, _: Client, __: DisconnectFlags, code: ReasonCode, *_rest: object) -> None:
        self._why_down = self._why_down or str(code)

    def _on_subscribe(self, _: Client, mid: int, codes: list[ReasonCode], *_rest: object) -> None:
        with self._lock:
            batch = self._awaited.pop(mid, ())
        for pattern in (one for one, code in zip(batch, codes, strict=False) if code.is_failure):
            self._delivery.put(Refused("subscription-denied", f"the broker denies {pattern!r}; check its access rules"))
        if mid in self._renewing:
            self._renewing.remove(mid)
            self._announce_once_renewed()

    def _on_message(self, _: Client, message: MQTTMessage) -> None:
        topic, payload = message.topic, bytes(message.payload)
        self.traffic.bytes_down += len(topic.encode()) + len(payload)
        self.traffic.messages_down += 1
        self._delivery.arrived(Received(topic, payload, message.retain))

    def _send_subscribe(self, client: Client, filters: list[str]) -> None:
        """Ask for filters, several in a packet; the lock is held, so that no SUBACK overtakes its note."""
        for at in range(0, len(filters), SUBSCRIBE_BATCH):
            batch = tuple(filters[at : at + SUBSCRIBE_BATCH])
            _, mid = client.subscribe([(pattern, 1) for pattern in batch])
            if mid is not None:
                self._awaited[mid] = batch

    def _release(self, client: Client, note: Callable[[], None]) -> None:
        with self._lock:
            if client is self._client and self._in_flight:
                note()


def mqtt_transport(
    settings: BrokerSettings, client_id: str, inbox: Inbox, will: LastWill | None = None, *, patient: bool = False
) -> MqttTransport:
    """Make a transport, with the password and certificates that the settings name.

    Args:
        settings: of the broker.
        client_id: as of `MqttTransport`.
        inbox: likewise.
        will: likewise.
        patient: as of `tls_context`.

    Raises:
        ConfigError: one of those files cannot be used.
    """
    tls = tls_context(settings, patient=patient)
    return MqttTransport(settings, client_id, inbox, will, password=read_password(settings), tls=tls)
