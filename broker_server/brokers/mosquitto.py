"""Eclipse Mosquitto as a private broker: its configuration file (mosquitto.conf(5)), and why each line stands there."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from broker_server.brokers.base import Broker, find_program
from broker_server.operators import operator

AUTOSAVE_S = 30


class Mosquitto(Broker):
    """Mosquitto 2.0 or later."""

    kind: ClassVar[str] = "mosquitto"
    install: ClassVar[str] = "run: apt install mosquitto"

    @classmethod
    def program(cls) -> str | None:
        """Path of `mosquitto`, or None."""
        return find_program("mosquitto")

    def arguments(self, file: Path) -> list[str]:
        """Read the configuration from `file`."""
        return ["-c", str(file)]

    def configuration(self) -> str:
        """Persistent, prompt and bounded.

        What was retained since the last save is lost in a crash (every 30 s, and in order on SIGTERM), so the server
        publishes desired state again when it connects.
        """
        options = self.options
        return f"""\
# Written by Roadcast at each start; changes here are lost.
listener {self.port} {options.host}
allow_anonymous true
# Keep this user; as root, Mosquitto would change to one that cannot write here.
user {operator()}
persistence true
persistence_location {options.state_dir.absolute()}/
persistence_file mosquitto.db
autosave_interval {AUTOSAVE_S}
# Acknowledgements would otherwise wait up to 40 ms for company.
set_tcp_nodelay true
max_packet_size {options.max_packet_bytes}
max_inflight_messages 20
max_queued_messages {options.max_queued_messages}
log_dest stderr
log_type error
log_type warning
log_type notice
"""
