"""Which private broker to run: Mosquitto where it is installed, else NATS. Owns no process."""

from __future__ import annotations

from typing import Final, Literal

from broker_server.brokers.base import Broker, BrokerOptions
from broker_server.brokers.mosquitto import Mosquitto
from broker_server.brokers.nats import Nats
from edge_protocol.errors import NotReadyError

BrokerKind = Literal["auto", "mosquitto", "nats"]
BROKERS: Final[tuple[type[Broker], ...]] = (Mosquitto, Nats)


def choose_broker(kind: BrokerKind = "auto", *, options: BrokerOptions) -> Broker:
    """Make a broker, not yet started.

    Args:
        kind: which one; ``auto`` takes the first that is installed.
        options: what to start it with.

    Raises:
        NotReadyError: it is not installed; the message says how to get one.
    """
    wanted = [broker for broker in BROKERS if kind in {"auto", broker.kind}]
    found = next((broker for broker in wanted if broker.program()), None)
    if found is None:
        ways = ", or ".join(broker.install for broker in wanted)
        raise NotReadyError(f"no MQTT broker is installed here ({', '.join(b.kind for b in wanted)}); {ways}")
    return found(options)
