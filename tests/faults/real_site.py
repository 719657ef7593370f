"""A server, a device and a slow link between, all real processes on a real broker; for tests that kill them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import yaml
from safetensors.numpy import load, save

from broker_server.brokers import Broker
from broker_server.config import RoundsConfig, ServerConfig
from broker_server.setup import push_release
from broker_server.status import open_database
from edge_client.config import DeviceConfig
from edge_client.installed import resolve
from edge_models.tasks import load_task
from edge_protocol.messages import DeviceState
from tests.edge_client.device_rig import device_config
from tests.fakes.centre import centre_config, write_packs
from tests.fakes.proxy import Proxy
from tests.fakes.small_centre import Files, artifact_files
from tests.fakes.waiting import wait_for

SPEC = load_task("vehicle")
WITHIN_S = 150.0
PADDING = 3 << 20
_CLOCK = (
    "import sys, time; real = time.time; shift = float(sys.argv.pop(1)) - real(); time.time = lambda: real() + shift"
)
"""Before anything else is imported, the wall clock is set to the first argument and runs on from there."""


def padded(files: Files, seed: int = 0) -> Files:
    """Files of which one takes a while to fetch: golden answers with a tensor that nobody asks for."""
    padding = np.random.default_rng(seed).integers(0, 256, PADDING, np.uint8)
    return replace(files, golden=save(load(files.golden) | {"padding": padding}))


class RealSite:
    """One server, one device, and the proxy that is the device's way to the broker.

    Attributes:
        proxy: slow; everything that the device fetches goes through it.
    """

    def __init__(self, folder: Path, broker: Broker) -> None:
        write_packs(folder)
        config = centre_config(folder, rounds=RoundsConfig(limit=0, quorum=1, wait_for=1))
        self.server_config: ServerConfig = msgspec.structs.replace(config, broker=broker.settings)
        self.proxy, self._folder = Proxy(broker.port), folder
        self._write("server.yaml", self.server_config)
        self.push(padded(artifact_files()))
        self.root = Path(config.state_dir, "tuf", "1.root.json").read_bytes()
        link = {"host": "127.0.0.1", "port": self.proxy.port, "reconnect_max_s": 1.0, "keepalive_s": 5}
        self.config: DeviceConfig = device_config(folder, trusted_root=self.root.decode(), broker=link)
        self._write("device.yaml", self.config)

    def push(self, files: Files) -> int:
        """Sign the next release; a running server publishes it."""
        place = self._folder / "pushed" / "nano"
        place.mkdir(parents=True, exist_ok=True)
        for name in ("template.onnx", "weights.safetensors", "golden.safetensors"):
            (place / name).write_bytes(getattr(files, name.partition(".")[0]))
        return push_release(self.server_config, "vehicle", place.parent, notes="", now=time.time()).counter

    @contextmanager
    def server(self) -> Iterator[subprocess.Popen[bytes]]:
        """Start the server; it has ended afterwards."""
        with self._started("server", "run", "-c", str(self._folder / "server.yaml")) as process:
            yield process

    @contextmanager
    def device(self, clock_s: float | None = None) -> Iterator[subprocess.Popen[bytes]]:
        """Start the device, with another wall clock if one is given; it has ended afterwards."""
        with self._started("client", "run", "-c", str(self._folder / "device.yaml"), clock_s=clock_s) as process:
            yield process

    def booting(self) -> list[int]:
        """Releases that the device's disk would boot now."""
        state = Path(self.config.state_dir)
        whole, _ = resolve(state / SPEC.name, state / "blobs", spec=SPEC, tier="nano", root=self.root)
        return [found.release for found in whole]

    def wait_mid_fetch(self) -> None:
        """Wait until a part of a file is on the device's disk, and not all of it."""
        parts = Path(self.config.state_dir) / "blobs"
        wait_for(
            lambda: any(p.stat().st_size > PADDING // 8 for p in parts.glob("*/part")), "a part", within_s=WITHIN_S
        )

    def wait_told(self, release: int) -> None:
        """Wait until the server has heard that the device runs a release."""
        wait_for(lambda: self._told() == release, f"word of release {release}", within_s=WITHIN_S)

    def wait_refused(self, reason: str) -> None:
        """Wait until the server has heard that the device dropped something for this reason."""

        def heard() -> bool:
            state = self._state()
            return state is not None and f"drop:{reason}" in state.counts

        wait_for(heard, f"word of {reason}", within_s=WITHIN_S)

    def _told(self) -> int | None:
        state = self._state()
        return None if state is None else state.release

    def _state(self) -> DeviceState | None:
        database = open_database(Path(self.server_config.state_dir))
        try:
            return next((stored.state for stored in database.states()), None)
        finally:
            database.close()

    def _write(self, name: str, config: object) -> None:
        (self._folder / name).write_text(yaml.safe_dump(msgspec.to_builtins(config)))

    @contextmanager
    def _started(self, *words: str, clock_s: float | None = None) -> Iterator[subprocess.Popen[bytes]]:
        run = "from roadcast.cli import main; main()"
        how = ["-m", "roadcast"] if clock_s is None else ["-c", f"{_CLOCK}; {run}", str(clock_s)]
        log = (self._folder / f"{words[0]}.log").open("ab")
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with (
            log,
            subprocess.Popen(
                [sys.executable, *how, *words], stdout=log, stderr=subprocess.STDOUT, env=environment
            ) as process,
        ):
            try:
                yield process
            finally:
                process.kill()
