"""A device as a process that only receives: the agent's transport and fetcher on a disk, no camera, no model."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from queue import Queue

import msgspec

from edge_client.effects import Fetched
from edge_client.fetcher import Fetcher
from edge_protocol.blobs import BlobRef
from edge_protocol.ids import FleetId, TaskId
from edge_protocol.topics import ChunkTopic, Topics
from edge_protocol.transport.base import Connected, Received
from edge_protocol.transport.mqtt import MqttTransport
from edge_protocol.transport.settings import BrokerSettings

TOPICS, TASK = Topics(FleetId("bench")), TaskId("vehicle")


def main(port: int, name: str, folder: Path) -> None:
    """Fetch every blob that is announced on the release topic; say when each was there, by the machine's clock."""
    inbox: Queue[object] = Queue(4096)
    link = MqttTransport(BrokerSettings(port=port), name, inbox)
    fetcher = Fetcher(folder, TOPICS, link)
    link.subscribe([TOPICS.release(TASK)])
    link.start()
    wanted = ""
    while True:
        event, now = inbox.get(), time.monotonic()
        if isinstance(event, Connected):
            print("ready", flush=True)
            continue
        if not isinstance(event, Received) or not event.payload:
            continue
        topic = TOPICS.parse(event.topic)
        if isinstance(topic, ChunkTopic):
            said = fetcher.chunk(topic, event.payload, now)
        else:
            ref = msgspec.msgpack.decode(event.payload, type=BlobRef)
            wanted, said = ref.sha256, fetcher.fetch(ref, now)
        if Fetched(wanted) in said:
            print(time.monotonic(), flush=True)
            fetcher.drop(wanted)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
