"""The agent as it is deployed: over MQTT, against each real broker that is here."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from broker_server.brokers import Broker
from edge_client.agent import Agent
from edge_client.factory import write_factory
from edge_protocol import messages as m
from edge_protocol.transport.memory import MemoryBroker
from edge_protocol.transport.mqtt import MqttTransport
from tests.edge_client.device_rig import NO_TRAINER, DeviceRig, device_config
from tests.edge_client.test_factory import release_of
from tests.fakes.authority import certified, identity_in
from tests.fakes.brokers import any_broker  # noqa: F401
from tests.fakes.secure_broker import secure_scene
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


@pytest.mark.broker
def test_a_device_serves_its_factory_model_until_it_is_enrolled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a certificate it answers frames and says why it is alone; it links when one comes, without a restart."""
    write_factory(tmp_path / "factory", *release_of(3))
    with secure_scene(tmp_path / "scene") as scene:
        files, settings = identity_in(tmp_path / "id"), scene.broker.settings
        broker = {"host": settings.host, "port": settings.port, "reconnect_max_s": 0.2}
        broker |= {"ca_file": str(files.ca), "cert_file": str(files.certificate), "key_file": str(files.key)}
        agent = Agent(device_config(tmp_path, factory=str(tmp_path / "factory"), broker=broker), trainer=NO_TRAINER)
        agent.start()

        def until(condition: Callable[[], object], what: str) -> None:
            def turned() -> object:
                agent.turn()
                return condition()

            wait_for(turned, what, within_s=60)

        until(lambda: agent.inference.counters.answered > 3, "answers of the factory model")
        until(lambda: agent._drops["connect-failed"] > 1, "more than one attempt")
        assert "serving alone until this device is enrolled" in caplog.text
        assert f"no certificate yet at {files.certificate}" in caplog.text
        certified(scene.authority, tmp_path / "id", "cam-1", time.time())
        until(lambda: agent.transport.connected, "a link")
        agent.close()
