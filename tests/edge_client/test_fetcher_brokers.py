"""Blobs over the brokers there are: their own limits, tiny limits, and one that is killed and forgets everything."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import Queue

import pytest

from broker_server.brokers import Broker, BrokerOptions
from broker_server.publisher import Publisher
from broker_server.quotas import QuotaConfig, Quotas
from broker_server.store.blobs import BlobFolder
from edge_client.effects import Fetched
from edge_client.fetcher import Fetcher, Outcome
from edge_protocol.effects import Send
from edge_protocol.ids import DeviceId, TaskId
from edge_protocol.messages import Need
from edge_protocol.topics import ChunkTopic, Topics
from edge_protocol.transport.base import Connected, Received
from edge_protocol.transport.mqtt import MqttTransport
from tests.fakes.brokers import LimitedMosquitto, make_broker
from tests.fakes.small_centre import FLEET
from tests.fakes.waiting import wait_for

TOPICS = Topics(FLEET)
DATA = random.Random(5).randbytes(3_000_000)
TINY = {"max_queued_messages": 10, "max_inflight_messages": 1, "max_packet_size": 64 * 1024}
OWN = dict.fromkeys(TINY)


@pytest.fixture(params=["own", "tiny", "nats"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """Mosquitto with the limits that it has by itself, Mosquitto with tiny ones, and NATS."""
    made = make_broker("nats" if request.param == "nats" else "mosquitto", tmp_path)
    if request.param != "nats":
        options = BrokerOptions(state_dir=tmp_path / "mosquitto", max_packet_bytes=64 * 1024, start_timeout_s=30)
        made = LimitedMosquitto(options, TINY if request.param == "tiny" else OWN)
    with made:
        yield made


@dataclass
class Pair:
    """A publisher and a device's fetcher on one broker, in turns; the device's `Need` takes the short way."""

    broker: Broker
    folder: Path
    said: list[Outcome] = field(default_factory=list)
    came: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inboxes: tuple[Queue[object], Queue[object]] = (Queue(), Queue())
        settings = self.broker.settings
        self.centre, self.device = (
            MqttTransport(settings, name, inbox) for name, inbox in zip(("centre", "cam-1"), self.inboxes, strict=True)
        )
        self.blobs = BlobFolder(self.folder / "server")
        self.publisher, self.quotas = Publisher(TOPICS, self.blobs, self.centre), Quotas(QuotaConfig(), 1)
        self.fetcher = Fetcher(self.folder / "blobs", TOPICS, self.device, timeout_s=1.0)
        self.centre.start()
        self.device.start()

    def turn(self) -> None:
        """Let both sides do what is due."""
        now = time.monotonic()
        for event in _drain(self.inboxes[0]):
            if isinstance(event, Connected):
                self.publisher.connected(now)
            elif isinstance(event, Received):
                self.publisher.found(event.topic)
        self.publisher.pump(now)
        for event in _drain(self.inboxes[1]):
            if isinstance(event, Connected):
                self.fetcher.relink()
            elif isinstance(event, Received):
                topic = TOPICS.parse(event.topic)
                assert isinstance(topic, ChunkTopic)
                self.came.append(topic.index)
                self._hear(self.fetcher.chunk(topic, event.payload, now), now)
        self._hear(self.fetcher.tick(now), now)
        time.sleep(0.002)

    def until_fetched(self, sha256: str, within_s: float = 20) -> None:
        """Turn until a blob is there."""
        deadline = time.monotonic() + within_s
        while Fetched(sha256) not in self.said:
            self.turn()
            assert time.monotonic() < deadline, f"not fetched; last said {self.said[-3:]}"

    def close(self) -> None:
        """End both sides."""
        self.fetcher.close()
        self.device.close()
        self.centre.close()

    def _hear(self, outcomes: list[Outcome], now: float) -> None:
        self.said += outcomes
        for outcome in outcomes:
            if isinstance(outcome, Send):
                assert isinstance(outcome.body, Need)
                spend = partial(self.quotas.again, DeviceId("cam-1"), now=now)
                assert self.publisher.need(outcome.body.sha256, outcome.body.indices, now, spend) == ""


def _drain(inbox: Queue[object]) -> Iterator[object]:
    """A few events: a whole blob may have come since the last turn, and a test looks between two."""
    for _ in range(min(inbox.qsize(), 5)):
        yield inbox.get_nowait()


@pytest.fixture
def pair(broker: Broker, tmp_path: Path) -> Iterator[Pair]:
    """Both sides on a broker."""
    with ExitStack() as stack:
        made = Pair(broker, tmp_path)
        stack.callback(made.close)
        yield made


@pytest.mark.broker
def test_a_blob_comes_whatever_the_brokers_limits_are(pair: Pair) -> None:
    """A queue of ten chunks, one in flight, no packet above 64 KiB: the bytes are the same."""
    ref = pair.blobs.put(DATA)
    pair.publisher.hold(TaskId("vehicle"), "release/1", (ref,))
    pair.said += pair.fetcher.fetch(ref, time.monotonic())
    pair.until_fetched(ref.sha256)
    assert pair.fetcher.path(ref.sha256).read_bytes() == DATA


@pytest.mark.broker
def test_a_broker_that_is_killed_and_forgets_everything_costs_no_chunk_that_was_had(pair: Pair) -> None:
    """SIGKILL in the middle, its store removed: the server fills it again, the device goes on where it was."""
    ref = pair.blobs.put(DATA)
    pair.publisher.hold(TaskId("vehicle"), "release/1", (ref,))
    pair.said += pair.fetcher.fetch(ref, time.monotonic())
    while (active := pair.fetcher._active) is None or len(active.pull.have) < 10:
        pair.turn()
    pair.broker.kill()
    wait_for(lambda: not pair.device.connected, "cut")
    pair.turn()
    had = set(active.pull.have)
    for left in pair.broker.options.state_dir.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    pair.broker.start()
    pair.came.clear()
    pair.until_fetched(ref.sha256)
    assert pair.fetcher.path(ref.sha256).read_bytes() == DATA
    assert len(had) < ref.chunks
    assert set(pair.came) == set(range(ref.chunks)) - had
