"""The pump and devices that misbehave: floods, messages left with the broker, two boards under one name."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from broker_server.config import FleetConfig, RoundsConfig
from broker_server.publisher import COOLDOWN_S, DOUBLINGS
from broker_server.quotas import QuotaConfig
from broker_server.status import status
from edge_models.tasks import load_task
from edge_protocol import messages as m
from edge_protocol.codec import encode
from edge_protocol.ids import DeviceId
from edge_protocol.transport.base import Received
from edge_protocol.transport.memory import MemoryBroker
from tests.fakes.centre import centre_config, make_server, scripted_distiller, write_packs
from tests.fakes.clock import FakeClock
from tests.fakes.fleet_simulator import FleetSimulator, class_votes, in_memory

QUOTA = QuotaConfig(messages_s=1, burst=50)


class Scene:
    """A server with a small quota, two devices, and time."""

    def __init__(self, folder: Path, quota: QuotaConfig = QUOTA) -> None:
        truth = write_packs(folder)["proxies"].targets
        config = centre_config(folder, rounds=RoundsConfig(limit=0), devices=FleetConfig(quota=quota))
        self.clock, self.broker = FakeClock(), MemoryBroker()
        self.server = make_server(config, self.broker, self.clock, scripted_distiller([0.5]))
        votes = class_votes(truth.astype(np.int64), 6)
        self.fleet = FleetSimulator(
            in_memory(self.broker), load_task("vehicle"), self.clock, 2, knowledge=lambda *_: votes
        )

    def run(self, seconds: float = 10.0) -> None:
        """Let everybody act until so much time has passed."""
        end = self.clock() + seconds
        while self.clock() < end:
            if not self.server.step() + self.fleet.step():
                self.clock.advance(0.5)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Two devices are there."""
    made = Scene(tmp_path)
    made.server.start()
    made.fleet.start()
    made.run()
    return made


def test_a_flood_costs_its_sender_only(scene: Scene) -> None:
    """Of 5000 results the quota's are taken; the other device's are all answered; the status names the sender."""
    flooder, honest = scene.fleet.devices
    result = m.IntervalResult("vehicle", "road", 0.0, 60.0, 1.0, {})
    for _ in range(5000):
        scene.broker.route(f"rc/v1/sim/d/{flooder.name}/up/telemetry", b"junk", retain=False)
    before = honest.acks[True, ""]
    ids = [honest.say(result, durable=True) for _ in range(20)]
    scene.run(30)
    assert scene.server.pump.drops["quota-messages"] > 4900
    assert honest.acks[True, ""] - before == len(set(ids)) == 20
    scene.server.close()
    offences = status(scene.server.database)["offences"]
    assert list(offences) == [flooder.name]
    assert offences[flooder.name]["quota-messages"]["count"] > 4900


def test_what_a_device_left_with_the_broker_is_not_taken(scene: Scene) -> None:
    """A retained message on an uplink, which every new session would get again, is dropped and counted."""
    topic = f"rc/v1/sim/d/{scene.fleet.devices[0].name}/up/telemetry"
    scene.server.inbox.put(Received(topic, b"junk", retained=True))
    scene.run(1)
    assert scene.server.pump.drops == {"retained-uplink": 1}
    scene.server.close()


def test_two_boards_under_one_name_are_reported(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """Births that alternate between two boots are logged and in the status; a restart is not."""
    name, birth = DeviceId("cam-9"), m.Birth("board", "1", "cpu", 4, 1 << 30, ())
    seen = []
    for boot in (b"A" * 8, b"B" * 8, b"A" * 8, b"B" * 8):
        header = m.Header("sim", name, boot + bytes(8), boot, 0, 0.0, True)
        scene.broker.route(f"rc/v1/sim/d/{name}/up/birth", encode(header, birth), retain=False)
        with caplog.at_level(logging.WARNING):
            scene.run(10)
        seen.append(status(scene.server.database)["offences"].get(name, {}).get("clone", {}).get("count", 0))
    assert seen == [0, 0, 1, 2]
    assert "two boards take turns" in caplog.text
    scene.server.close()


def test_a_device_that_asks_for_everything_all_the_time_gets_its_budget(tmp_path: Path) -> None:
    """At any moment of ten minutes the server has published what the quota allows; another device's need is met."""
    scene = Scene(tmp_path, QuotaConfig(again_burst=1 << 20, again_s=1024.0))
    scene.server.start()
    scene.fleet.start()
    scene.run()
    asker, honest = scene.fleet.devices
    kept = [topic for topic in scene.broker.retained if "/blob/" in topic]
    blobs = {sha256: tuple(range(256)) for sha256 in (topic.split("/")[-2] for topic in kept)}
    traffic, began, before = scene.server.transport.traffic, scene.clock(), scene.server.transport.traffic.bytes_up
    while (passed := scene.clock() - began) < 600:
        for sha256, indices in blobs.items():
            asker.say(m.Need(sha256, indices))
        scene.run(5)
        assert traffic.bytes_up - before < 1.1 * ((1 << 20) + 1024 * (passed + 5))
    assert scene.server.pump.drops["quota-again"] > 0
    lost = kept[0]
    del scene.broker.retained[lost]
    scene.run(COOLDOWN_S * 2**DOUBLINGS)
    honest.say(m.Need(lost.split("/")[-2], (int(lost.split("/")[-1]),)))
    scene.run(1)
    assert lost in scene.broker.retained
    scene.server.close()
    assert "quota-again" in status(scene.server.database)["offences"][asker.name]
