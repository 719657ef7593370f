"""The whole way over mutual TLS: a real agent, the real server process, and a flood by one of the fleet's own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_client.agent import Agent
from edge_client.config import DeviceConfig
from edge_models.tasks import load_task
from edge_protocol import messages as m
from edge_protocol.ids import SERVER, DeviceId
from edge_protocol.messages import RoundCall
from edge_protocol.transport.memory import MemoryBroker
from edge_protocol.transport.mqtt import mqtt_transport
from tests.edge_client.device_rig import NO_TRAINER, DeviceRig, device_config
from tests.fakes.fleet_simulator import FleetSimulator, class_votes
from tests.fakes.secure_broker import TOPICS, SecureScene, secure_scene
from tests.fakes.small_centre import SmallCentre, artifact_files
from tests.fakes.waiting import wait_for
from tests.integration.test_server_process import TASK, WITHIN_S, Centre, drive, started

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]
FLOOD = 20_000


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[SecureScene]:
    """A secure broker."""
    with secure_scene(tmp_path / "secure") as made:
        yield made


def test_an_agent_works_with_its_exact_rights(tmp_path: Path, scene: SecureScene) -> None:
    """Birth, release, chunks, acks and goodbye pass the rules of a device and of the server."""
    centre = SmallCentre(MemoryBroker())
    link = mqtt_transport(scene.settings(SERVER), "centre", centre.inbox)
    centre.link = link  # type: ignore[assignment]
    link.subscribe(centre.topics.every_uplink)
    link.start()
    wait_for(lambda: link.connected, "link of the centre", within_s=60)
    config: DeviceConfig = msgspec.structs.replace(device_config(tmp_path), broker=scene.settings("cam-1"))
    rig = DeviceRig.__new__(DeviceRig)
    rig.config, rig.centre, rig.agent = config, centre, Agent(config, trainer=NO_TRAINER)
    rig.agent.start()
    rig.until(lambda: centre.of(m.Birth), "birth")
    centre.release(1, {"nano": artifact_files()})
    rig.until(lambda: rig.agent.core.running.release == 1, "release 1")
    rig.until(lambda: len(rig.agent.outbox) == 0, "the acks")
    rig.agent.close()

    def goodbye() -> bool:
        centre.turn()
        return centre.of(m.Presence)[-1:] == [m.Presence(online=False)]

    wait_for(goodbye, "goodbye")
    assert centre.of(m.Deployment)[-1].state == "committed"
    link.close()


def test_a_flood_by_one_device_costs_the_round_nothing(tmp_path: Path, scene: SecureScene) -> None:
    """While one device sends 20,000 messages, the server deploys to four others and takes all their reports."""
    centre = Centre(tmp_path, scene.settings(SERVER))

    def knowledge(_device: str, _call: RoundCall) -> m.ClassVotes:
        return class_votes(centre.truth.astype(np.int64), 6)

    fleet = FleetSimulator(
        lambda name, inbox, will: mqtt_transport(scene.settings(name), name, inbox, will),
        load_task(TASK),
        time.time,
        4,
        knowledge=knowledge,
    )
    flooder = scene.client("flooder")
    topic, sent = TOPICS.up(DeviceId("flooder"), "result"), 0
    with centre.running(), started(fleet):
        deadline = time.monotonic() + 2 * WITHIN_S
        while not (sent == FLOOD and all(d.reports for d in fleet.devices) and centre.reports() == 4):
            while sent < FLOOD and flooder.link.publish(topic, b"x" * 1000):
                sent += 1
            fleet.step()
            assert time.monotonic() < deadline, f"{sent} sent"
        drive(fleet, lambda: "quota-messages" in centre.status()["offences"].get("flooder", {}), "the flooder's name")
        offences = centre.status()["offences"]
    assert sent == FLOOD
    assert set(offences) == {"flooder"}


def test_two_boards_with_one_identity_are_in_the_status(tmp_path: Path, scene: SecureScene) -> None:
    """A copied identity takes the board's session over, the board takes it back: the server names them."""
    centre = Centre(tmp_path, scene.settings(SERVER))
    boards = [
        FleetSimulator(
            lambda name, inbox, will: mqtt_transport(scene.settings(name), name, inbox, will),
            load_task(TASK),
            time.time,
            1,
            knowledge=lambda *_: None,
            seed=seed,
        )
        for seed in (1, 2)
    ]

    def named() -> bool:
        boards[1].step()
        return time.monotonic() > look_at and "clone" in centre.status()["offences"].get("dev-0", {})

    with centre.running(), started(boards[0]), started(boards[1]):
        look_at = time.monotonic() + 5
        drive(boards[0], named, "the clone's name")
