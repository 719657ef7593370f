"""Feeds the observer from a real broker. Owns the connection, not what the messages mean."""

from __future__ import annotations

from queue import Empty, Queue
from time import monotonic
from types import TracebackType

from typing_extensions import Self

from edge_protocol.transport.base import Inbox, Received
from edge_protocol.transport.mqtt import MqttTransport
from edge_protocol.transport.settings import BrokerSettings
from roadcast.demo.observer import Observer

_INBOX = 20_000


class Watch:
    """A connection that listens only.

    Args:
        settings: where the broker is.
        observer: takes in what comes.
        tasks: names of the tasks to follow.
    """

    def __init__(self, settings: BrokerSettings, observer: Observer, tasks: list[str]) -> None:
        self._inbox: Inbox = Queue(_INBOX)
        self._observer = observer
        self._transport = MqttTransport(settings, "demo-observer", self._inbox)
        self._transport.subscribe(observer.filters(tasks))
        self.started = monotonic()

    def __enter__(self) -> Self:
        self._transport.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._transport.close()

    def poll(self, timeout_s: float) -> None:
        """Wait up to `timeout_s` for a message, and take in everything that is there."""
        try:
            event = self._inbox.get(timeout=timeout_s)
            while True:
                if isinstance(event, Received):
                    self._observer.take(event.topic, event.payload, monotonic() - self.started)
                event = self._inbox.get_nowait()
        except Empty:
            return
