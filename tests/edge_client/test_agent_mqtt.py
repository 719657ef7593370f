"""The agent as it is deployed: over MQTT, against each real broker that is here."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker_server.brokers import Broker
from edge_client.agent import Agent
from edge_protocol import messages as m
from edge_protocol.transport.memory import MemoryBroker
from edge_protocol.transport.mqtt import MqttTransport
from tests.edge_client.device_rig import NO_TRAINER, DeviceRig, device_config
from tests.fakes.brokers import any_broker  # noqa: F401
from tests.fakes.small_centre import SmallCentre, artifact_files
from tests.fakes.waiting import wait_for


@pytest.mark.broker
def test_a_release_comes_over_a_real_broker_and_goodbye_is_said(tmp_path: Path, any_broker: Broker) -> None:  # noqa: F811
    """Chunks, manifest, acks and presence on real MQTT; the broker's link is left in order."""
    settings = any_broker.settings
    centre = SmallCentre(MemoryBroker())
    link = MqttTransport(settings, "centre", centre.inbox)
    centre.link = link  # type: ignore[assignment]
    link.subscribe(centre.topics.every_uplink)
    link.start()
    wait_for(lambda: link.connected, "link of the centre")
    rig = DeviceRig.__new__(DeviceRig)
    rig.config = device_config(tmp_path, broker={"host": settings.host, "port": settings.port})
    rig.centre, rig.agent = centre, Agent(rig.config, trainer=NO_TRAINER)
    rig.agent.start()
    rig.until(lambda: centre.of(m.Birth), "birth")
    centre.release(1, {"nano": artifact_files()})
    rig.until(lambda: rig.agent.core.running.release == 1, "release 1")
    rig.until(lambda: len(rig.agent.outbox) == 0, "the acks")
    rig.agent.close()
    wait_for(lambda: centre.turn() or centre.of(m.Presence)[-1:] == [m.Presence(online=False)], "goodbye")
    assert centre.of(m.Deployment)[-1].state == "committed"
    link.close()
