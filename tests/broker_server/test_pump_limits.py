"""The pump with what is too large for the wire or the broker: dropped with a reason, at a call and at each start."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import msgspec
import pytest

from broker_server.config import RoundsConfig
from broker_server.records import ReleaseRecord
from broker_server.server import Server
from broker_server.setup import push_release
from edge_models.tasks import load_task
from edge_protocol import messages as m
from edge_protocol.codec import decode
from edge_protocol.effects import Send
from edge_protocol.errors import ArtifactError
from edge_protocol.ids import DeviceId, TaskId
from edge_protocol.manifest import encode_manifest
from edge_protocol.transport.base import Received
from edge_protocol.transport.memory import MemoryBroker, MemoryTransport
from edge_protocol.transport.settings import BrokerSettings
from tests.broker_server.scenes import huge_manifest
from tests.fakes.centre import centre_config, make_server, scripted_distiller, write_artifacts, write_packs
from tests.fakes.clock import FakeClock

TASK = TaskId("vehicle")


class Scene:
    """A fleet's server that can be started again, on one broker."""

    def __init__(self, folder: Path) -> None:
        write_packs(folder)
        self.config = centre_config(folder, rounds=RoundsConfig(limit=0))
        self.clock, self.broker, self._folder = FakeClock(time.time()), MemoryBroker(), folder
        self.server: Server | None = None

    def start(self, max_packet_bytes: int = 256 << 20) -> Server:
        """Start a server in the place of the one before, and let it act."""
        self.close()
        self.server = server = make_server(self.config, self.broker, self.clock, scripted_distiller([]))
        server.transport.max_packet_bytes = max_packet_bytes  # type: ignore[attr-defined]
        server.start()
        self.act()
        return server

    def act(self) -> None:
        """Let the server do what it has to do."""
        assert self.server is not None
        for _ in range(20):
            while self.server.step():
                pass
            self.clock.advance(0.5)

    def push(self) -> ReleaseRecord:
        """Release small artifacts."""
        write_artifacts(self._folder / "mine", load_task(TASK), seed=9, size=100)
        return push_release(self.config, TASK, self._folder / "mine", notes="", now=self.clock())

    @property
    def offered(self) -> bool:
        """Whether the broker keeps a release for the fleet."""
        return f"rc/v1/sim/all/release/{TASK}" in self.broker.retained

    def close(self) -> None:
        """End the server."""
        if self.server is not None:
            self.server.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A server that has not been started."""
    made = Scene(tmp_path)
    yield made
    made.close()


def test_a_release_on_disk_above_the_broker_s_limit_ends_no_server(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    """Each start drops it and says so; with a higher limit it is offered."""
    scene.push()
    for _ in range(2):
        server = scene.start(max_packet_bytes=1_200)
        assert (server.pump.drops["oversized"] > 0, scene.offered) == (True, False)
    assert caplog.text.count("release/vehicle' exceeds the broker's 1200") == 2
    assert scene.start().pump.drops == {}
    assert scene.offered


def test_a_release_on_disk_above_the_wire_s_bound_ends_no_server(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    """None of its chunks goes out; the server lives, and the next release is offered."""
    record = scene.push()
    huge = huge_manifest(record.manifest, counter=2)
    row = ReleaseRecord(
        task=TASK, counter=2, round=None, created_s=0.0, metrics={}, notes="", manifest=encode_manifest(huge)
    )
    server = scene.start()
    server.database.add_release(row)
    scene.act()
    assert server.pump.drops == {"oversized": 1}
    assert "not sent: release of" in caplog.text
    assert not any(f"blob/{'0' * 64}" in topic for topic in scene.broker.retained)
    assert scene.start().pump.drops == {"oversized": 1}
    assert scene.push().counter == 3
    scene.act()
    assert scene.offered


def test_an_answer_too_large_for_the_broker_lets_those_behind_it_go(scene: Scene) -> None:
    """A message to a device that no packet holds is dropped and counted; the next one goes out."""
    server, inbox = scene.start(), Queue[Any]()
    listener = MemoryTransport(scene.broker, inbox)
    listener.subscribe([server.topics.down(DeviceId("dev-0"), "ack")])
    listener.start()
    server.transport.max_packet_bytes = 300  # type: ignore[attr-defined]
    answers = [m.Ack(bytes(16), accepted=False, reason=reason) for reason in ("r" * 250, "x" * 20_000, "ok")]
    server.pump.do([Send(answer, to=DeviceId("dev-0")) for answer in answers], scene.clock())
    scene.act()
    heard = [event.payload for event in inbox.queue if isinstance(event, Received)]
    assert [decode(payload, kind="ack", fleet="sim").body for payload in heard] == [answers[-1]]
    assert server.pump.drops == {"oversized": 2}


def test_release_push_refuses_what_could_never_be_offered(scene: Scene) -> None:
    """One line names the manifest's size and the limit in the server's configuration; no release is recorded."""
    scene.config = msgspec.structs.replace(scene.config, broker=BrokerSettings(max_packet_bytes=1_200))
    with pytest.raises(ArtifactError, match=r"manifest would be a message of \d+ bytes, above the 1200 of broker"):
        scene.push()
    assert scene.start().database.releases(TASK) == []
