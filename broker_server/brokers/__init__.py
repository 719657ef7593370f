"""Private brokers as child processes: Mosquitto where it is installed, else the pip-installed NATS server."""

from broker_server.brokers.base import Broker, BrokerOptions
from broker_server.brokers.choose import BrokerKind, choose_broker

__all__ = ["Broker", "BrokerKind", "BrokerOptions", "choose_broker"]
