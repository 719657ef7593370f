"""The whole loop in real processes on real brokers, undisturbed and with every kind of process killed in the middle."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from broker_server.brokers import Broker
from broker_server.config import RoundsConfig
from edge_protocol.task import Tier
from tests.fakes.brokers import any_broker, mosquitto_broker
from tests.fakes.real_fleet import WITHIN_S, RealFleet
from tests.fakes.waiting import wait_for

__all__ = ["any_broker", "mosquitto_broker"]
pytestmark = [pytest.mark.broker, pytest.mark.timeout(3600)]
TIERS: dict[str, Tier] = {"cam-1": "nano", "cam-2": "base"}
ROUNDS = RoundsConfig(limit=1, quorum=2, wait_for=2, deadline_s=WITHIN_S, pause_s=0)


def assert_converged(fleet: RealFleet) -> None:
    """Round 1 ends with both reports used, and both devices on the newest release."""
    ended = fleet.wait_round(1)
    assert ended["reports"] == 2
    assert ended["refused"] == {}
    for device in TIERS:
        fleet.wait_running(device, 2 if ended["state"] == "released" else 1)


def test_the_loop_converges_on_every_broker(tmp_path: Path, any_broker: Broker) -> None:
    """First release, round and its outcome with two architectures; SIGTERM then ends every process in five seconds."""
    fleet = RealFleet(tmp_path, any_broker, TIERS, ROUNDS)
    with ExitStack() as stack:
        processes = [stack.enter_context(fleet.process(name)) for name in ("server", *TIERS)]
        assert_converged(fleet)
        began = time.monotonic()
        for process in processes:
            process.terminate()
        assert [process.wait(timeout=10) for process in processes] == [0, 0, 0]
        assert time.monotonic() - began < 5


def test_the_loop_survives_the_death_of_each_process(tmp_path: Path, mosquitto_broker: Broker) -> None:
    """A device dies while it fetches and mid-swap, the broker mid-round with its store, the server while it distils."""
    fleet = RealFleet(tmp_path, mosquitto_broker, TIERS, ROUNDS)
    blobs, attempts = tmp_path / "cam-1/blobs", tmp_path / "cam-1/vehicle/attempts.json"
    with fleet.process("cam-2"):
        with fleet.process("server") as server:
            with fleet.process("cam-1"):
                wait_for(lambda: blobs.exists() and any(blobs.rglob("*")), "a first chunk on disk", within_s=WITHIN_S)
            with fleet.process("cam-1"):
                wait_for(attempts.exists, "a candidate being tried", within_s=WITHIN_S)
            assert fleet.running("cam-1") == 0
            with fleet.process("cam-1"):
                fleet.wait(lambda: fleet.round(1).get("state") == "collecting", "an open round")
                mosquitto_broker.kill()
                for stored in mosquitto_broker.options.state_dir.rglob("*.db"):
                    stored.unlink()
                mosquitto_broker.start()
                fleet.wait(lambda: fleet.round(1).get("state") == "distilling", "a distillation")
                server.send_signal(signal.SIGKILL)
        with fleet.process("server"), fleet.process("cam-1"):
            assert_converged(fleet)
