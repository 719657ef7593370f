"""The whole loop in real processes on real brokers, undisturbed and with every kind of process killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from broker_server.brokers import Broker
from broker_server.config import DistilConfig, RoundsConfig
from broker_server.key_setup import signed_roles
from broker_server.status import open_database, status
from tests.fakes.brokers import any_broker, mosquitto_broker
from tests.fakes.centre import centre_config, write_packs
from tests.fakes.waiting import wait_for

__all__ = ["any_broker", "mosquitto_broker"]
pytestmark = [pytest.mark.broker, pytest.mark.timeout(900)]
WITHIN_S = 300.0
TIERS = {"cam-1": "nano", "cam-2": "base"}


class Fleet:
    """A server and two devices of different architecture, each a process of its own, on simulated samples."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self.folder, self._broker = folder, broker
        write_packs(folder, samples=48)
        distil = DistilConfig(first_steps=40, steps=20)
        rounds = RoundsConfig(limit=1, quorum=2, wait_for=2, deadline_s=WITHIN_S, pause_s=0)
        server = msgspec.structs.replace(centre_config(folder, rounds=rounds, distil=distil), broker=broker.settings)
        self._write("server", msgspec.to_builtins(server))
        root = str(signed_roles(server).newest_root)
        for device, tier in TIERS.items():
            self._write(device, self._device(device, tier, root))

    @contextmanager
    def process(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run the server or a device; it has ended when the block ends."""
        side = "server" if name == "server" else "client"
        command = [sys.executable, "-m", "roadcast", side, "run", "--config", str(self.folder / f"{name}.yaml")]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
            try:
                yield process
            finally:
                process.kill()
                process.wait()

    @property
    def status(self) -> dict[str, Any]:
        """What the server's disk says now; nothing before the server has made its database."""
        if not (self.folder / "server/server.db").exists():
            return {"tasks": {}}
        database = open_database(self.folder / "server")
        try:
            return status(database)
        finally:
            database.close()

    def round(self) -> dict[str, Any]:
        """Round 1, or nothing."""
        rounds = self.status["tasks"].get("vehicle", {"rounds": []})["rounds"]
        return next((r for r in rounds if r["number"] == 1), {})

    def running(self, device: str) -> int:
        """Counter of the release that a device's disk names."""
        pointer = self.folder / device / "vehicle/current.json"
        return int(json.loads(pointer.read_text())["release"]) if pointer.exists() else 0

    def assert_converged(self) -> None:
        """Round 1 ends with both reports used, and both devices on the newest release."""
        ends = {"released", "abandoned"}
        assert wait_for(lambda: self.round().get("state") in ends, "end of round 1", within_s=WITHIN_S)
        assert self.round()["reports"] == 2
        assert self.round()["refused"] == {}
        newest = 2 if self.round()["state"] == "released" else 1
        for device in TIERS:
            arrived = partial(lambda device: self.running(device) == newest, device)
            assert wait_for(arrived, f"{device} on release {newest}", within_s=WITHIN_S)

    def _write(self, name: str, config: Any) -> None:
        (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(config))

    def _device(self, device: str, tier: str, root: str) -> dict[str, Any]:
        pack = str(self.folder / "anchors.npz")
        source = {"name": "main", "uri": f"pack://{pack}", "rate_hz": 20, "loop": True, "serving": "whole-sample"}
        return {
            "fleet": "sim",
            "device": device,
            "tier": tier,
            "task": "vehicle",
            "broker": msgspec.to_builtins(self._broker.settings),
            "trusted_root": root,
            "state_dir": str(self.folder / device),
            "sources": [source],
            "labels": {"commissioning": pack},
            "train": {"nice": 0},
            "report_interval_s": 1,
        }


def test_the_loop_converges_on_every_broker(tmp_path: Path, any_broker: Broker) -> None:
    """First release, round and its outcome with two architectures; SIGTERM then ends every process in five seconds."""
    fleet = Fleet(tmp_path, any_broker)
    with ExitStack() as stack:
        processes = [stack.enter_context(fleet.process(name)) for name in ("server", *TIERS)]
        fleet.assert_converged()
        began = time.monotonic()
        for process in processes:
            process.terminate()
        assert [process.wait(timeout=10) for process in processes] == [0, 0, 0]
        assert time.monotonic() - began < 5


def test_the_loop_survives_the_death_of_each_process(tmp_path: Path, mosquitto_broker: Broker) -> None:
    """A device dies while it fetches and mid-swap, the broker mid-round with its store, the server while it distils."""
    fleet = Fleet(tmp_path, mosquitto_broker)
    blobs, attempts = tmp_path / "cam-1/blobs", tmp_path / "cam-1/vehicle/attempts.json"
    with fleet.process("cam-2"):
        with fleet.process("server") as server:
            with fleet.process("cam-1"):
                wait_for(lambda: blobs.exists() and any(blobs.rglob("*")), "a first chunk on disk", within_s=WITHIN_S)
            with fleet.process("cam-1"):
                wait_for(attempts.exists, "a candidate being tried", within_s=WITHIN_S)
            assert fleet.running("cam-1") == 0
            with fleet.process("cam-1"):
                wait_for(lambda: fleet.round().get("state") == "collecting", "an open round", within_s=WITHIN_S)
                mosquitto_broker.kill()
                for stored in mosquitto_broker.options.state_dir.rglob("*.db"):
                    stored.unlink()
                mosquitto_broker.start()
                wait_for(lambda: fleet.round().get("state") == "distilling", "a distillation", within_s=WITHIN_S)
                server.send_signal(signal.SIGKILL)
        with fleet.process("server"), fleet.process("cam-1"):
            fleet.assert_converged()
