"""Many light receivers in one process: real connections, chunks asked for and checked, nothing kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from queue import Queue

from edge_protocol.blobs import BlobRef, Pull
from edge_protocol.topics import ChunkTopic
from edge_protocol.transport.base import Connected, Received
from edge_protocol.transport.mqtt import MqttTransport
from edge_protocol.transport.settings import BrokerSettings

from benchmarks.delivery.receiver import TASK, TOPICS  # isort: skip

WINDOW = 8


class _Tagged(Queue[object]):
    """An inbox whose events go on, with a name, to one that all share."""

    def __init__(self, name: int, shared: Queue[tuple[int, object]]) -> None:
        super().__init__()
        self._name, self._shared = name, shared

    def put(self, item: object, block: bool = True, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002
        """Hand on."""
        self._shared.put((self._name, item), block, timeout)


def receive_light(settings: BrokerSettings, count: int, ref: BlobRef) -> Callable[[], float]:
    """Connect so many receivers; what is returned fetches a blob with all of them and says when the last one had it."""
    shared: Queue[tuple[int, object]] = Queue()
    links = [MqttTransport(settings, f"light-{n}", _Tagged(n, shared)) for n in range(count)]
    for link in links:
        link.subscribe([TOPICS.release(TASK)])
        link.start()
    for _ in range(count):
        while not isinstance(shared.get(timeout=60)[1], Connected):
            pass
    return partial(_fetch, links, shared, ref)


def _fetch(links: list[MqttTransport], shared: Queue[tuple[int, object]], ref: BlobRef) -> float:
    pulls = [Pull(ref, window=WINDOW, timeout_s=60) for _ in links]
    left = len(links)
    while left:
        name, event = shared.get(timeout=120)
        if not isinstance(event, Received) or not event.payload:
            continue
        link, pull, topic = links[name], pulls[name], TOPICS.parse(event.topic)
        if isinstance(topic, ChunkTopic) and topic.sha256 == ref.sha256:
            left -= pull.take(topic.index, event.payload) and pull.complete
            link.unsubscribe([event.topic])
        link.subscribe([TOPICS.chunk(ref.sha256, index) for index in pull.ask(time.monotonic())[0]])
    ended = time.monotonic()
    for link in links:
        link.close()
    return ended
