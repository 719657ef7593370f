"""Fixtures of the transport suite: each kind of broker behind one way to connect, cut and watch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from typing import Any, Protocol

import msgspec
import pytest

from edge_protocol.transport.base import Connected, LastWill, Transport
from edge_protocol.transport.memory import MemoryBroker, MemoryTransport
from edge_protocol.transport.mqtt import MqttTransport, mqtt_transport
from edge_protocol.transport.settings import BrokerSettings
from tests.fakes.brokers import any_broker, make_broker, mosquitto_broker, nats_broker
from tests.fakes.proxy import Proxy
from tests.fakes.waiting import next_of

__all__ = ["any_broker", "mosquitto_broker", "nats_broker"]
FAST_S = 0.2


@dataclass
class Client:
    """A transport, its inbox, and a way to lose its link."""

    transport: Transport
    inbox: Queue[Any]
    cut: Callable[[], None]

    def connect(self) -> Client:
        """Start, and wait until the link is up."""
        self.transport.start()
        next_of(self.inbox, Connected)
        return self


class Bench(Protocol):
    """Makes clients of one broker."""

    def client(self, name: str, will: LastWill | None = None) -> Client:
        """A client that is not yet started."""
        ...


class MemoryBench:
    """Clients of a `MemoryBroker`."""

    def __init__(self) -> None:
        self._broker = MemoryBroker()

    def client(self, name: str, will: LastWill | None = None) -> Client:
        """A client that is not yet started."""
        inbox: Queue[Any] = Queue(1000)
        transport = MemoryTransport(self._broker, inbox, will)
        return Client(transport, inbox, transport.cut)


@dataclass
class RealBench:
    """Clients of a real broker, each behind a proxy of its own."""

    settings: BrokerSettings
    _made: list[tuple[MqttTransport, Proxy]] = field(default_factory=list)

    def client(self, name: str, will: LastWill | None = None) -> Client:
        """A client that is not yet started."""
        inbox: Queue[Any] = Queue(1000)
        proxy = Proxy(self.settings.port)
        settings = msgspec.structs.replace(self.settings, port=proxy.port, reconnect_max_s=FAST_S)
        transport = mqtt_transport(settings, name, inbox, will)
        self._made.append((transport, proxy))
        return Client(transport, inbox, proxy.cut)

    def close(self) -> None:
        """End every client and proxy."""
        for transport, proxy in self._made:
            transport.close()
            proxy.close()


@pytest.fixture(params=["memory", "mosquitto", "nats"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """Every kind of broker in turn."""
    if request.param == "memory":
        yield MemoryBench()
        return
    with make_broker(request.param, tmp_path) as broker:
        real = RealBench(broker.settings)
        try:
            yield real
        finally:
            real.close()
