"""A server and devices on simulated samples, each a process of its own on a real broker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import yaml

from broker_server.brokers import Broker
from broker_server.config import DistilConfig, RoundsConfig, ServerConfig
from broker_server.key_setup import signed_roles
from broker_server.status import open_database, status
from edge_protocol.task import Tier
from tests.fakes.centre import centre_config, write_packs
from tests.fakes.round_state import LENIENT
from tests.fakes.waiting import wait_for

WITHIN_S = 1200.0
"""Nothing takes so long on an idle machine, by far; what cannot come any more is told at once."""
EVERY_S = 0.5
"""A look at the server's disk costs tens of milliseconds: the processes that are waited for need them."""
PATIENT = {
    "train": {"nice": 0, "pause": {"hot_c": 150, "cool_c": 150}},
    "probation": {"latency_factor": 1000, "agreement": 0},
}
"""A machine that runs tests may be hot and slow, and students of so few steps need not agree with the next ones."""


class RealFleet:
    """Processes of one fleet, and what their disks say.

    Args:
        folder: of all files.
        broker: started.
        tiers: devices by name; one device a process.
        rounds: when the server calls; see `call`.

    Attributes:
        server: its configuration.
    """

    def __init__(self, folder: Path, broker: Broker, tiers: Mapping[str, Tier], rounds: RoundsConfig) -> None:
        self.folder, self._broker = folder, broker
        write_packs(folder, samples=48)
        distil = DistilConfig(first_steps=40, steps=20)
        made = centre_config(folder, rounds=rounds, distil=distil, judge=LENIENT)
        self.server: ServerConfig = msgspec.structs.replace(made, broker=broker.settings)
        self.call(rounds)
        for device, tier in tiers.items():
            self.add(device, tier)

    def call(self, rounds: RoundsConfig) -> None:
        """Have the next server process call rounds so."""
        task = msgspec.structs.replace(self.server.tasks["vehicle"], rounds=rounds)
        self.server = msgspec.structs.replace(self.server, tasks={"vehicle": task})
        self._write("server", msgspec.to_builtins(self.server))

    def add(self, device: str, tier: Tier, labels: Path | None = None) -> None:
        """Commission a device with a pack of labels, those of the anchors when none is named."""
        pack = str(self.folder / "anchors.npz")
        source = {"name": "main", "uri": f"pack://{pack}", "rate_hz": 5, "loop": True, "serving": "whole-sample"}
        self._write(
            device,
            {
                "fleet": "sim",
                "device": device,
                "tier": tier,
                "task": "vehicle",
                "broker": msgspec.to_builtins(self._broker.settings),
                "trusted_root": str(signed_roles(self.server).newest_root),
                "state_dir": str(self.folder / device),
                "sources": [source],
                "labels": {"commissioning": str(labels or pack)},
                "report_interval_s": 1,
                **PATIENT,
            },
        )

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
            return {"tasks": {}, "devices": []}
        database = open_database(self.folder / "server")
        try:
            return status(database)
        finally:
            database.close()

    def round(self, number: int = 1) -> dict[str, Any]:
        """A round, or nothing."""
        rounds = self.status["tasks"].get("vehicle", {"rounds": []})["rounds"]
        return next((r for r in rounds if r["number"] == number), {})

    def wait_round(self, number: int) -> dict[str, Any]:
        """Wait until a round is over; return it."""
        ends = {"released", "abandoned"}
        self.wait(lambda: self.round(number).get("state") in ends, f"end of round {number}")
        return self.round(number)

    def running(self, device: str) -> int:
        """Counter of the release that a device's disk names."""
        pointer = self.folder / device / "vehicle/current.json"
        return int(json.loads(pointer.read_text())["release"]) if pointer.exists() else 0

    def wait_running(self, device: str, release: int) -> None:
        """Wait until a device runs a release; fail at once with its reason when it has sent that one back for good."""

        def told() -> bool:
            for each in (d["tasks"]["vehicle"] for d in self.status["devices"] if d["device"] == device):
                assert each["deployment"] not in {"rolled_back", "rejected"}, (device, each)
            return self.running(device) == release

        self.wait(told, f"{device} on release {release}")

    @staticmethod
    def wait(condition: Callable[[], object], what: str) -> None:
        """Wait for something on a disk of the fleet."""
        wait_for(condition, what, within_s=WITHIN_S, every_s=EVERY_S)

    def _write(self, name: str, config: Any) -> None:
        (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
