"""A whole agent on a memory broker, in turns, with a small centre; for the tests of the shell."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from devices.packs import ImagePack, SeriesPack, save_pack
from edge_client.agent import Agent
from edge_client.config import DeviceConfig
from edge_client.planner import MakeWorkshop
from edge_models.tasks import load_task, plugin_of
from edge_protocol.config import load_config
from edge_protocol.transport.memory import MemoryBroker, MemoryTransport
from tests.fakes.small_centre import FLEET, SmallCentre, trusted_root

NO_TRAINER = (sys.executable, "-c", "import sys; sys.exit('no trainer here')")
"""A trainer that always fails, at once: the shared head serves."""


def image_pack(folder: Path, samples: int = 60, seed: int = 1) -> Path:
    """A pack of simulated images."""
    spec = load_task("vehicle")
    made = plugin_of(spec).simulate(spec, np.random.default_rng(seed), samples)
    pack = ImagePack.of(made.raw.astype(np.uint8), labels=made.targets, classes=spec.labels)
    save_pack(folder / "images.npz", pack, title="simulated")
    return folder / "images.npz"


def series_pack(folder: Path, rows: int = 200, sensors: int = 3, name: str = "series.npz") -> Path:
    """A pack of simulated speeds with outages."""
    rng = np.random.default_rng(3)
    values = 50 + 10 * np.sin(np.arange(rows)[:, None] / 20 + np.arange(sensors)) + rng.normal(0, 1, (rows, sensors))
    values[rng.random(values.shape) < 0.05] = np.nan
    pack = SeriesPack(
        values=values.astype(np.float32),
        time_s=1.6e9 + 300.0 * np.arange(rows),
        interval_s=300.0,
        sensors=tuple(f"loop{i}" for i in range(sensors)),
        unit="mph",
    )
    save_pack(folder / name, pack, title="simulated")
    return folder / name


def device_config(folder: Path, **changes: Any) -> DeviceConfig:
    """A camera's configuration, with changes."""
    tree: dict[str, Any] = {
        "fleet": FLEET,
        "device": "cam-1",
        "tier": "nano",
        "task": "vehicle",
        "trusted_root": trusted_root(),
        "state_dir": str(folder / "state"),
        "report_interval_s": 0.5,
        "train": {"pause": {"hot_c": 150, "cool_c": 150}},  # a machine that runs tests may be hot
        "probation": {"frames": 4, "wait_s": 5.0, "latency_factor": 1000},
        **changes,
    }
    if "sources" not in tree:
        uri = f"pack://{image_pack(folder)}"
        tree["sources"] = [{"name": "main", "uri": uri, "rate_hz": 100, "loop": True, "serving": "whole-sample"}]
    import yaml  # noqa: PLC0415

    return load_config(yaml.safe_dump(tree), DeviceConfig, where="device.yaml")


@dataclass
class DeviceRig:
    """One device and its centre."""

    config: DeviceConfig
    broker: MemoryBroker = field(default_factory=MemoryBroker)
    trainer: tuple[str, ...] = NO_TRAINER
    wall: Callable[[], float] = time.time
    workshop: MakeWorkshop | None = None

    def __post_init__(self) -> None:
        self.centre = SmallCentre(self.broker)
        self.boot()

    def boot(self) -> None:
        """Start the agent (again)."""
        self.agent = Agent(
            self.config, partial(MemoryTransport, self.broker), self.trainer, wall=self.wall, workshop=self.workshop
        )
        self.agent.start()

    def until(self, condition: Callable[[], object], what: str, within_s: float = 40) -> None:
        """Turn agent and centre until something holds."""
        deadline = time.monotonic() + within_s
        while not condition():
            self.agent.turn()
            self.centre.turn()
            assert time.monotonic() < deadline, f"no {what}; heard {self.centre.heard[-4:]}"

    def close(self) -> None:
        """End the agent in order."""
        self.agent.stop()
        self.agent.close()
        self.centre.turn()
