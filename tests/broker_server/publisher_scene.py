"""What the publisher's tests are played with: a broker in memory, and a link that takes as much as it is told to."""

from __future__ import annotations

from pathlib import Path
from queue import Queue
from typing import Any

from broker_server.publisher import Publisher
from broker_server.store.blobs import BlobFolder
from edge_protocol.blobs import BlobRef
from edge_protocol.ids import FleetId, TaskId
from edge_protocol.topics import Topics
from edge_protocol.transport.base import Received
from edge_protocol.transport.memory import MemoryBroker, MemoryTransport

TASK = TaskId("vehicle")
TOPICS = Topics(FleetId("f"))


class Slow(MemoryTransport):
    """Takes a given number of messages, then is not ready."""

    room = 10**9

    @property
    def ready(self) -> bool:
        """Whether there is room."""
        return self.connected and self.room > 0

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> bool:
        """Take a message if there is room."""
        if not self.ready:
            return False
        self.room -= 1
        return super().publish(topic, payload, retain=retain)


class Scene:
    """A publisher on a broker in memory."""

    def __init__(self, folder: Path, *, connected: bool = True) -> None:
        self.broker, self.inbox = MemoryBroker(), Queue[Any]()
        self.transport, self.blobs = Slow(self.broker, self.inbox), BlobFolder(folder)
        self.publisher = Publisher(TOPICS, self.blobs, self.transport)
        if connected:
            self.transport.start()

    def blob(self, fill: bytes, chunks: int = 3) -> BlobRef:
        """Keep a blob of some chunks."""
        return self.blobs.put(fill * (10 * chunks), 10)

    def chunks(self, ref: BlobRef) -> list[int]:
        """Chunks of a blob that the broker keeps."""
        return [i for i in range(ref.chunks) if TOPICS.chunk(ref.sha256, i) in self.broker.retained]

    def settle(self, now: float = 0.0) -> None:
        """Pump until nothing goes out, with whatever came in."""
        while True:
            while not self.inbox.empty():
                event = self.inbox.get()
                if isinstance(event, Received):
                    self.publisher.found(event.topic)
            if not self.publisher.pump(now) and self.inbox.empty():
                return
