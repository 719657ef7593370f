"""A server with devices in a thread, whose time flies; for commands that look at its folder and leave orders there."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import msgspec

from broker_server.config import RoundsConfig
from broker_server.setup import push_release
from edge_models.tasks import load_task
from edge_protocol.messages import Measured
from edge_protocol.transport.memory import MemoryBroker
from tests.fakes.centre import centre_config, make_server, scripted_distiller, write_artifacts, write_packs
from tests.fakes.clock import FakeClock
from tests.fakes.fleet_simulator import FleetSimulator, in_memory


class RunningCentre:
    """Serves release 1 of ``vehicle`` until `close`.

    Args:
        folder: of its files; packs and artifacts are made there.
        devices: how many there are, ``dev-0`` and on.
        held: whether release 2 lies there too, held back for a rollout.

    Attributes:
        state_dir: the server's.
    """

    def __init__(self, folder: Path, devices: int, *, held: bool = False) -> None:
        write_packs(folder)
        clock, broker, spec = FakeClock(), MemoryBroker(), load_task("vehicle")
        config = centre_config(folder, rounds=RoundsConfig(limit=0))
        self.state_dir = config.state_dir
        write_artifacts(folder / "mine", spec)
        for held_by in ("", "ann") if held else ("",):
            push_release(config, "vehicle", folder / "mine", notes="", now=clock(), held_by=held_by)
        self._server = make_server(config, broker, clock, scripted_distiller([]))
        self._fleet = FleetSimulator(
            in_memory(broker), spec, clock, devices, knowledge=lambda *_: None, measured=self.measured
        )
        self._clock, self._over = clock, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def measured(self, device: str, empty: Measured) -> Measured:
        """What a device answers when it is to be measured: that it is fast, here."""
        del device
        return msgspec.structs.replace(empty, ran="CPUExecutionProvider", queries=1000, values={"p95_ms": 5.0})

    def close(self) -> None:
        """End the thread and the server."""
        self._over.set()
        self._thread.join()
        self._server.close()

    def _run(self) -> None:
        self._server.start()
        self._fleet.start()
        while not self._over.is_set():
            if not self._server.step() + self._fleet.step():
                self._clock.advance(0.5)
                time.sleep(0.002)
