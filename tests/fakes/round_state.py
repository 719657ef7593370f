"""A state folder with three finished rounds of the speed task, made by a real server and its real worker."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from broker_server.config import DistilConfig, RoundsConfig
from broker_server.distil_worker import main
from broker_server.judge import JudgeRules
from devices.packs import SeriesPack, save_pack
from edge_models.tasks import load_task
from edge_protocol import messages as m
from edge_protocol.ids import DeviceId, TaskId
from edge_protocol.transport.memory import MemoryBroker
from tests.broker_server.strategies.ballots import forecast_votes
from tests.fakes.centre import centre_config, drive, make_server, rounds_closed
from tests.fakes.clock import FakeClock
from tests.fakes.fleet_simulator import FleetSimulator, in_memory

SPEED = TaskId("speed")
LENIENT = JudgeRules(tolerance=1.0, cohort_tolerance=1.0)
DISTIL = DistilConfig(first_steps=8, steps=8, checkpoint_steps=4, seed=1)


def save_series(path: Path, seed: int) -> str:
    """Save a noisy daily pattern of two sensors; return the path."""
    time_s = 300 * np.arange(90, dtype=np.float64)
    values = 50 + 8 * np.sin(time_s / 9000)[:, None] + np.random.default_rng(seed).normal(0, 1, (90, 2))
    pack = SeriesPack(values=values.astype(np.float32), time_s=time_s, interval_s=300, sensors=("a", "b"), unit="mph")
    save_pack(path, pack, title="two sensors")
    return str(path)


def in_process(folder: Path, _cancelled: threading.Event) -> None:
    """The real worker, without its process."""
    main([str(folder)], lambda _: None)


def three_rounds(home: Path) -> Path:
    """Run a first release and two rounds; dev-1 answers only the first of these. Return the state folder."""
    for seed, name in enumerate(("anchors", "proxies", "validation")):
        save_series(home / f"{name}.npz", seed)
    clock, broker = FakeClock(), MemoryBroker()
    rounds = RoundsConfig(limit=2, quorum=1, wait_for=2, deadline_s=20, pause_s=0)
    config = centre_config(home, rounds=rounds, task=SPEED, distil=DISTIL, judge=LENIENT)
    server = make_server(config, broker, clock, in_process)

    def knowledge(device: DeviceId, call: m.RoundCall) -> m.ForecastVotes | None:
        samples = server.coordinator.tasks[SPEED].setup.samples
        silent = device == "dev-1" and call.number > 1
        return None if silent else forecast_votes([0.3125] * samples, horizons=3)

    fleet = FleetSimulator(in_memory(broker), load_task(SPEED), clock, 2, knowledge=knowledge)
    try:
        server.start()
        fleet.start()
        drive(server, fleet, clock, rounds_closed(server, 2, SPEED), "end of round 2")
    finally:
        server.close()
    return Path(config.state_dir)
