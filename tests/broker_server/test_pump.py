"""The pump with a real store on a memory broker: hostile bytes, a full disk, lost links, pushed and old releases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from broker_server.config import RoundsConfig, ServerConfig
from broker_server.rounds import RoundState
from broker_server.server import Server
from broker_server.setup import push_release
from edge_models.tasks import load_task
from edge_protocol import messages as m
from edge_protocol.arrays import pack
from edge_protocol.codec import MAX_BYTES, encode
from edge_protocol.ids import TaskId
from edge_protocol.manifest import decode_manifest
from edge_protocol.topics import ChunkTopic
from edge_protocol.transport.base import Refused
from edge_protocol.transport.memory import MemoryBroker
from tests.fakes.centre import centre_config, make_server, scripted_distiller, write_artifacts, write_packs
from tests.fakes.clock import FakeClock
from tests.fakes.fleet_simulator import FleetSimulator, class_votes, in_memory

TASK = TaskId("vehicle")


class World:
    """A server, four devices, and time."""

    def __init__(self, folder: Path, scores: list[float], limit: int | None) -> None:
        self.truth = write_packs(folder)["proxies"].targets
        rounds = RoundsConfig(limit=limit, quorum=4, wait_for=4, deadline_s=600, pause_s=1)
        self.config: ServerConfig = centre_config(folder, rounds=rounds, keep_releases=2)
        self.clock, self.broker = FakeClock(), MemoryBroker()
        self.server: Server = make_server(self.config, self.broker, self.clock, scripted_distiller(scores))
        self.fleet = FleetSimulator(
            in_memory(self.broker),
            load_task("vehicle"),
            self.clock,
            4,
            knowledge=lambda *_: class_votes(self.truth, 6),
        )

    def run(self, seconds: float = 10.0) -> None:
        """Let everybody act until that much time has passed with nothing else to do."""
        end = self.clock() + seconds
        while self.clock() < end:
            if not self.server.step() + self.fleet.step():
                self.clock.advance(0.5)

    def publish(self, kind: str, payload: bytes, device: str = "dev-0") -> None:
        """Put bytes on a device's topic."""
        self.broker.route(f"rc/v1/sim/d/{device}/up/{kind}", payload, retain=False)

    @property
    def drops(self) -> Any:
        """What the server refused, by reason."""
        return self.server.pump.drops


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Release 1 is out, and four devices run it; no round follows."""
    made = World(tmp_path, [0.5], limit=0)
    made.server.start()
    made.fleet.start()
    made.run()
    assert [device.running for device in made.fleet.devices] == [1] * 4
    yield made
    made.server.close()


def header(device: str = "dev-0", fleet: str = "sim") -> m.Header:
    """A header that claims to be from a device."""
    return m.Header(fleet, device, bytes(16), bytes(8), 10**6, 0.0, True)


def poisoned() -> bytes:
    """A forecast report with a NaN, made by changing bytes after the checks of this side."""
    spread = np.full((2, 1), 7, np.float16)
    votes = m.ForecastVotes(pack(np.zeros((2, 1), np.float16)), pack(spread))
    good = encode(header(), m.KnowledgeReport("vehicle", "s", 1, 1, "0" * 64, 1, votes))
    bad = good.replace(spread.tobytes(), np.array([np.nan, 7], np.float16).tobytes())
    assert bad != good
    return bad


@pytest.mark.parametrize(
    ("kind", "payload", "reason"),
    [
        ("telemetry", b"", "malformed"),
        ("telemetry", b"RC\x01", "malformed"),
        ("telemetry", encode(header(), m.Telemetry({}))[:-3], "malformed"),
        ("telemetry", b"RC\x09" + encode(header(), m.Telemetry({}))[3:], "wrong-version"),
        ("telemetry", encode(header(fleet="other"), m.Telemetry({})), "wrong-fleet"),
        ("telemetry", encode(header("dev-1"), m.Telemetry({})), "wrong-sender"),
        ("birth", encode(header(), m.Telemetry({})), "wrong-kind"),
        ("knowledge", bytes(MAX_BYTES["knowledge"] + 1), "oversized"),
        ("knowledge", poisoned(), "not-finite"),
        ("nonsense", b"RC\x01", "unknown-topic"),
    ],
)
def test_bytes_that_break_the_contract_are_counted_and_dropped(
    world: World, kind: str, payload: bytes, reason: str
) -> None:
    """Whatever comes on a device's topic, the server goes on and says how often and why it refused."""
    world.publish(kind, payload)
    world.run(1)
    assert world.drops[reason] == 1
    assert world.server.step() == 0


def test_the_operator_reads_why_a_device_does_not_count(tmp_path: Path) -> None:
    """NaN in a report is in the record of the round, under the device's name, when that is over."""
    made = World(tmp_path, [0.5, 0.6], limit=1)
    made.fleet.patience = lambda device: 1000.0 if device == "dev-0" else 0.0
    try:
        made.server.start()
        made.fleet.start()
        made.run(20)
        assert made.server.coordinator.tasks[TASK].round.collecting  # type: ignore[union-attr]
        made.publish("knowledge", poisoned())
        made.run(700)
        refused = made.server.database.rounds(TASK)[-1].refused
        assert list(refused) == ["dev-0"]
        assert refused["dev-0"].startswith("not-finite: ")
    finally:
        made.server.close()


def test_a_device_cannot_speak_for_another(world: World) -> None:
    """A deployment under a foreign name changes nothing of that device."""
    told = m.Deployment("vehicle", 1, "rolled_back", 0, "")
    world.publish("deployment", encode(header("dev-1"), told), device="dev-0")
    world.run(1)
    assert world.drops["wrong-sender"] == 1
    assert world.server.coordinator.registry.devices["dev-1"].tasks[TASK].release == 1  # type: ignore[index]


def test_a_name_that_no_topic_may_hold_is_refused(world: World) -> None:
    """A device under an illegal name is never registered: the server could not even answer it."""
    for name in ("two words", "$x", ""):
        world.publish("birth", encode(header(name), m.Birth("b", "1", "r", 1, 1, ())), device=name)
    world.run(1)
    assert world.drops["unknown-topic"] == 3
    assert len(world.server.coordinator.registry.devices) == 4


def test_what_is_not_for_the_server_is_dropped(world: World) -> None:
    """A topic that only devices read, an empty presence, and what the transport refused."""
    world.server.inbox.put(Refused("inbox-full", "3 messages"))
    world.broker.route("rc/v1/sim/d/dev-0/online", b"", retain=False)
    world.server.transport.subscribe(["rc/v1/sim/d/nobody/down/ack"])
    world.broker.route("rc/v1/sim/d/nobody/down/ack", b"x", retain=False)
    world.run(1)
    assert (world.drops["inbox-full"], world.drops["wrong-direction"]) == (1, 1)


def test_a_full_disk_stops_acknowledgements_not_the_server(world: World) -> None:
    """While the store refuses nothing is acknowledged or taken; with room again nothing was lost."""
    database, device = world.server.database, world.fleet.devices[0]
    with database.engine.connect() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar_one()
        connection.execute(text(f"PRAGMA max_page_count={pages}"))
    results = [
        device.say(
            m.IntervalResult("vehicle", "road", 0.0, 60.0, 1.0, {f"k{i}": 1.0 for i in range(500)}), durable=True
        )
        for _ in range(20)
    ]
    world.run(20)
    assert world.server.pump.stuck
    assert set(results) <= set(device.outbox)
    assert world.drops["store-refused"] > 0
    with database.engine.connect() as connection:
        connection.execute(text("PRAGMA max_page_count=1000000"))
    world.run(20)
    assert not world.server.pump.stuck
    assert (device.outbox, len(database.results(TASK))) == ({}, 20)


def test_answers_wait_for_a_link_that_is_down(world: World) -> None:
    """A message taken just before the link broke is acknowledged once it is back."""
    device = world.fleet.devices[0]
    device.say(m.IntervalResult("vehicle", "road", 0.0, 60.0, 1.0, {}), durable=True)
    world.server.transport.publish = lambda *_, **__: False  # type: ignore[method-assign]
    world.server.step()
    assert world.server.pump.busy
    assert device.outbox
    del world.server.transport.publish  # type: ignore[attr-defined]
    world.run(1)
    assert device.outbox == {}


def test_a_link_that_breaks_and_comes_back_changes_nothing(world: World) -> None:
    """The server says that it is not busy while there is no link, and finds its chunks on the next one."""
    world.server.transport.cut()  # type: ignore[attr-defined]
    world.run(1)
    assert not world.server.pump.connected
    assert not world.server.pump.busy
    world.server.inbox.put("something that nobody knows")
    world.server.transport.start()
    world.run(5)
    assert world.server.pump.connected
    assert world.server.publisher.idle


def test_a_need_is_met_or_counted(world: World) -> None:
    """A chunk that the broker lost comes back at a device's word; one that never was is counted."""
    device, proxy = world.fleet.devices[0], world.server.coordinator.tasks[TASK].setup.proxy
    assert proxy is not None
    sha256 = proxy.sha256
    topic = world.server.topics.chunk(sha256, 1)
    del world.broker.retained[topic]
    device.say(m.Need(sha256, (1,)))
    device.say(m.Need("0" * 64, (1,)))
    world.run(1)
    assert topic in world.broker.retained
    assert world.drops["unknown-blob"] == 1


def test_a_pushed_release_reaches_every_device(world: World, tmp_path: Path) -> None:
    """What another process records in the store is noticed, published and deployed."""
    write_artifacts(tmp_path / "mine", load_task("vehicle"), seed=9)
    record = push_release(world.config, "vehicle", tmp_path / "mine", notes="by hand", now=world.clock())
    world.run()
    assert record.counter == 2
    assert [device.running for device in world.fleet.devices] == [2] * 4


def test_a_release_that_is_gone_from_disk_does_not_end_the_pump(world: World) -> None:
    """While the database cannot be read for new releases the server only says so."""
    with world.server.database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE releases RENAME TO hidden"))
    world.run(3)
    with world.server.database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE hidden RENAME TO releases"))
    world.run(3)
    assert world.server.step() == 0


def test_only_the_newest_releases_stay_on_the_broker(tmp_path: Path) -> None:
    """After three rounds the chunks of the first two releases are cleared; devices run the last."""
    world = World(tmp_path, [0.1, 0.2, 0.3, 0.4], limit=3)
    try:
        world.server.start()
        world.fleet.start()
        world.run(30)
        assert world.server.coordinator.tasks[TASK].round.state is RoundState.RELEASED  # type: ignore[union-attr]
        releases = world.server.database.releases(TASK)
        assert [r.on_broker for r in releases] == [False, False, True, True]
        kept = set()
        for record in releases[2:]:
            kept |= {ref.sha256 for ref in decode_manifest(record.manifest).blobs}
        ref = world.server.coordinator.tasks[TASK].setup.proxy
        assert ref is not None
        proxy = ref.sha256
        parsed = [world.server.topics.parse(topic) for topic in world.broker.retained]
        assert {topic.sha256 for topic in parsed if isinstance(topic, ChunkTopic)} == kept | {proxy}
        assert [device.running for device in world.fleet.devices] == [4] * 4
    finally:
        world.server.close()
