"""The centre of a whole board: packs, a server process, releases, the site that the board is flashed from."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import yaml

from broker_server.config import DistilConfig, RoundsConfig
from broker_server.key_setup import signed_roles
from broker_server.status import open_database, status
from edge_protocol.transport.settings import BrokerSettings
from tests.fakes.centre import centre_config, write_packs
from tests.fakes.small_centre import artifact_files
from tests.qemu.authority import HOST, roadcast, serving

DEVICE, TASK, FLEET = "cam-1", "vehicle", "sim"
_PACK = "/etc/roadcast/anchors.npz"
ROOT, STATE = "/etc/roadcast/root.json", "/var/lib/roadcast"
ROADCAST, CONFIG = "/opt/roadcast/venv/bin/roadcast", "/etc/roadcast/device.yaml"


class Centre:
    """A server that is a process, and what it makes of one device.

    Args:
        folder: for everything of the centre.
        port: of the broker.
        wheels: what a board installs.
        seen_as: under which address the device reaches it.
    """

    def __init__(self, folder: Path, port: int, wheels: Path, seen_as: str = HOST) -> None:
        self.folder, self._port, self._seen_as = folder, port, seen_as
        (folder / "wheels").symlink_to(wheels)
        write_packs(folder, samples=48)
        self.hold(rounds=0)

    def hold(self, rounds: int) -> None:
        """Write the server's file: how many rounds it holds."""
        says = RoundsConfig(limit=rounds, quorum=1, wait_for=1, deadline_s=7200, pause_s=0)
        distil = DistilConfig(first_steps=40, steps=20, trust_share=0)
        config = centre_config(self.folder, rounds=says, distil=distil)
        self._config = msgspec.structs.replace(config, broker=self._settings(HOST, str(self.folder / "id")))
        self.file = self._write("server.yaml", msgspec.to_builtins(self._config))

    def push(self, seed: int) -> None:
        """Push an untrained student as the next release; it need not answer as the one before does."""
        files, place = artifact_files(TASK, "nano", seed), self.folder / f"student-{seed}"
        (place / "nano").mkdir(parents=True)
        (place / "nano/template.onnx").write_bytes(files.template)
        (place / "nano/weights.safetensors").write_bytes(files.weights)
        (place / "nano/golden.safetensors").write_bytes(files.golden)
        roadcast("release", "push", place, "--config", self.file, "--task", TASK)

    def running(self) -> AbstractContextManager[None]:
        """Run the server."""
        return serving(self.folder / "server.log", "server", "run", "--config", self.file)

    def site(self, ssh: Mapping[str, Any] = MappingProxyType({}), **install: Any) -> Path:
        """Write the site of the device; where SSH reaches it, and what the section `install` is to say besides."""
        (self.folder / "root.json").write_bytes(signed_roles(self._config).newest_root.read_bytes())
        agent: dict[str, Any] = {
            "fleet": FLEET,
            "tier": "nano",
            "task": TASK,
            "trusted_root": ROOT,
            "state_dir": STATE,
            "broker": msgspec.to_builtins(self._settings(self._seen_as, f"{STATE}/id")),
            "labels": {"commissioning": _PACK},
            "report_interval_s": 1,
            "probation": {"frames": 20, "wait_s": 60, "latency_factor": 1000, "agreement": 0},
            "train": {"pause": {"hot_c": 150, "cool_c": 150}, "timeout_s": 3600, "nice": 0},
        }
        source = {"name": "road", "uri": f"pack://{_PACK}", "rate_hz": 2, "loop": True, "serving": "whole-sample"}
        site = {
            "agent": agent,
            "devices": {DEVICE: {"sources": [source]}},
            "install": {"wheels": "wheels", "copy": {_PACK: "anchors.npz", ROOT: "root.json"}, **install},
            "ssh": {DEVICE: dict(ssh)} if ssh else {},
        }
        return self._write("site.yaml", site)

    def listed(self) -> bool:
        """Whether `roadcast devices list` has the device as online."""
        if not (self.folder / "server/server.db").exists():
            return False
        listed = msgspec.json.decode(roadcast("devices", "list", "--state-dir", self.folder / "server", "--json"))
        return any(device["device"] == DEVICE and device["state"] == "online" for device in listed)

    def status(self) -> dict[str, Any]:
        """What the server's disk says."""
        database = open_database(self.folder / "server")
        try:
            return status(database)
        finally:
            database.close()

    def state(self) -> dict[str, Any]:
        """The device's newest state of its task; empty before there is one."""
        known = {device["device"]: device for device in self.status()["devices"]}
        return known.get(DEVICE, {}).get("tasks", {}).get(TASK, {}).get("state") or {}

    def _settings(self, host: str, folder: str) -> BrokerSettings:
        files = {"ca_file": f"{folder}/ca.pem", "cert_file": f"{folder}/own.pem", "key_file": f"{folder}/own.key"}
        return BrokerSettings(host=host, port=self._port, **files)  # type: ignore[arg-type]

    def _write(self, name: str, tree: Any) -> Path:
        path = self.folder / name
        path.write_text(yaml.safe_dump(tree))
        return path
