"""The real server process on a real Mosquitto: killed mid-round, a broker that forgets, an orderly end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from broker_server.brokers import Broker
from broker_server.config import RoundsConfig, ServerConfig, read_config
from broker_server.setup import push_release
from broker_server.status import open_database, status
from edge_models.tasks import load_task
from edge_protocol.ids import TaskId
from edge_protocol.messages import RoundCall
from edge_protocol.transport.mqtt import mqtt_transport
from edge_protocol.transport.settings import BrokerSettings
from edge_protocol.trust import commissioned
from tests.fakes.brokers import mosquitto_broker
from tests.fakes.centre import centre_config, write_artifacts, write_packs
from tests.fakes.fleet_simulator import FleetSimulator, class_votes

__all__ = ["mosquitto_broker"]
pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]
TASK = TaskId("vehicle")
WITHIN_S = 60.0


class Centre:
    """A server as a process, on a release that was pushed before it started."""

    def __init__(self, folder: Path, broker: BrokerSettings) -> None:
        self.truth = write_packs(folder)["proxies"].targets
        rounds = RoundsConfig(limit=1, quorum=4, wait_for=4, deadline_s=600, pause_s=0)
        config = msgspec.structs.replace(centre_config(folder, rounds=rounds), broker=broker)
        self.file = folder / "server.yaml"
        self.file.write_text(yaml.safe_dump(msgspec.to_builtins(config)))
        self.config: ServerConfig = read_config(self.file)
        write_artifacts(folder / "pushed", load_task(TASK), size=40_000)
        push_release(self.config, TASK, folder / "pushed", notes="by hand", now=time.time())

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """Start the process; whatever happens, it has ended afterwards."""
        command = [sys.executable, "-m", "roadcast", "server", "run", "-c", str(self.file), "--json"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.read(1) == b"{"
                yield process
            finally:
                process.kill()

    def status(self) -> dict[str, Any]:
        """What the state folder says now."""
        database = open_database(Path(self.config.state_dir))
        try:
            return status(database)
        finally:
            database.close()

    def reports(self) -> int:
        """Reports of round 1 on disk."""
        rounds = self.status()["tasks"][TASK]["rounds"]
        return max((r["reports"] for r in rounds if r["number"] == 1), default=0)

    def fleet(self, answers: Callable[[str], bool]) -> FleetSimulator:
        """Four devices on the real broker; those that `answers` names speak when called."""

        def knowledge(device: str, _call: RoundCall) -> Any:
            return class_votes(self.truth, 6) if answers(device) else None

        return FleetSimulator(
            lambda name, inbox, will: mqtt_transport(self.config.broker, name, inbox, will),
            load_task(TASK),
            time.time,
            4,
            knowledge=knowledge,
        )


def drive(fleet: FleetSimulator, until: Callable[[], bool], what: str) -> None:
    """Let devices act until a condition holds; fail when it does not in time."""
    deadline = time.monotonic() + WITHIN_S
    while not until():
        fleet.step()
        assert time.monotonic() < deadline, f"no {what} within {WITHIN_S} s"
        time.sleep(0.02)


@contextmanager
def started(fleet: FleetSimulator) -> Iterator[FleetSimulator]:
    """Connect a fleet, and disconnect it in the end."""
    fleet.start()
    try:
        yield fleet
    finally:
        fleet.close()


def test_killed_mid_round_the_server_goes_on_without_asking_again(tmp_path: Path, mosquitto_broker: Broker) -> None:
    """A server killed with three of four reports on disk takes only the fourth after its restart."""
    centre, late = Centre(tmp_path, mosquitto_broker.settings), {"dev-3"}
    with started(centre.fleet(lambda device: device not in late)) as fleet:
        with centre.running() as process:
            drive(fleet, lambda: sum(d.acks[True, ""] for d in fleet.devices if d.reports) >= 3 * 3, "acks of reports")
            assert centre.reports() == 3
            process.send_signal(signal.SIGKILL)
        fourth = fleet.devices[3]
        with centre.running() as process:
            fourth._answered = 0
            late.clear()
            drive(fleet, lambda: centre.reports() == 4, "fourth report after the restart")
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            process.wait(timeout=5)
            assert time.monotonic() - began < 5
        assert [device.reports for device in fleet.devices] == [1, 1, 1, 1]
        assert process.returncode == 0


def test_a_broker_that_forgot_everything_is_filled_again(tmp_path: Path, mosquitto_broker: Broker) -> None:
    """After a broker lost its store, a new device still finds manifest, round and every chunk."""
    centre = Centre(tmp_path, mosquitto_broker.settings)
    with centre.running():
        with started(centre.fleet(lambda _: False)) as fleet:
            drive(fleet, lambda: all(d.running == 1 for d in fleet.devices), "first deployment")
        mosquitto_broker.kill()
        for stored in mosquitto_broker.options.state_dir.rglob("*.db"):
            stored.unlink()
        mosquitto_broker.start()
        with started(centre.fleet(lambda _: False)) as fleet:
            drive(fleet, lambda: all(d.running == 1 for d in fleet.devices), "deployment after the loss")
            assert all(d.running == 1 for d in fleet.devices)


def test_the_server_says_what_a_device_must_trust(tmp_path: Path, mosquitto_broker: Broker) -> None:
    """The first thing that the process prints names fleet, broker and the root that devices begin with."""
    centre = Centre(tmp_path, mosquitto_broker.settings)
    with centre.running() as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        said = json.loads(b"{" + process.stdout.read())
    assert said["fleet"] == "sim"
    commissioned(Path(said["trusted_root"]).read_bytes())
    with suppress(ProcessLookupError):
        os.kill(process.pid, 0)
        raise AssertionError("the server is still there")
