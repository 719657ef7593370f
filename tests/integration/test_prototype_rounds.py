"""Rounds without proxies, whole: from devices' samples to a release, with everything real but the broker's network."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from broker_server.config import DistilConfig, RoundsConfig, ServerConfig, TaskConfig
from broker_server.distil_job import read_job
from broker_server.distil_worker import run_job
from broker_server.judge import JudgeRules
from broker_server.key_setup import begin, signed_roles
from broker_server.replay import replay
from broker_server.rounds import RoundState
from devices.packs import SeriesPack, save_pack
from edge_client.agent import Agent
from edge_models.tasks import load_task
from edge_protocol import messages as m
from edge_protocol.ids import DeviceId, TaskId
from edge_protocol.prototypes import told_arrays
from edge_protocol.task import FEATURES
from edge_protocol.transport.memory import MemoryBroker, MemoryTransport
from tests.edge_client.device_rig import device_config
from tests.fakes.centre import centre_config, drive, make_server, rounds_closed, scripted_distiller, write_packs
from tests.fakes.clock import FakeClock
from tests.fakes.fleet_simulator import FleetSimulator, in_memory

TASK = TaskId("vehicle")
SPEC = load_task("vehicle")
WITHIN_S = 900.0
PACKS = ("anchors", "proxies", "validation")
TIERS = {"cam-1": "nano", "cam-2": "base"}


def in_process(folder: Path, _cancelled: threading.Event) -> None:
    """The real distiller, without its process."""
    run_job(folder, lambda _: None)


def without_proxies(config: ServerConfig) -> ServerConfig:
    """The same server, whose task has no proxy pack."""
    tasks = {name: msgspec.structs.replace(task, proxies=None) for name, task in config.tasks.items()}
    return msgspec.structs.replace(config, tasks=tasks)


@pytest.mark.timeout(1200)
def test_class_means_of_real_devices_become_a_release(tmp_path: Path) -> None:
    """Two whole agents of different tiers, real trainers, a server without a proxy pack, the real distiller and judge.

    No proxy set is on the broker, both reports count, and the release that comes of them runs on both devices.
    """
    write_packs(tmp_path, samples=48)
    (tmp_path / "proxies.npz").unlink()
    broker = MemoryBroker()
    config = without_proxies(
        centre_config(
            tmp_path,
            rounds=RoundsConfig(limit=1, quorum=2, wait_for=2, deadline_s=WITHIN_S, pause_s=0),
            distil=DistilConfig(strategy="fedproto", first_steps=15, steps=40, batch=16, seed=1),
            judge=JudgeRules(tolerance=1.0, cohort_tolerance=1.0),
        )
    )
    server = make_server(config, broker, time.time, in_process)
    server.start()
    agents = []
    for device, tier in TIERS.items():
        (tmp_path / device).mkdir()
        one = device_config(
            tmp_path / device,
            device=device,
            tier=tier,
            trusted_root=str(signed_roles(config).newest_root),
            labels={"commissioning": str(tmp_path / "anchors.npz")},
            privacy={"prototype_k": 3},
        )
        agents.append(Agent(one, partial(MemoryTransport, broker)))
        agents[-1].start()
    try:
        deadline = time.monotonic() + WITHIN_S
        while not all(agent.core.running.release == 2 for agent in agents):
            server.step()
            for agent in agents:
                agent.turn()
            assert time.monotonic() < deadline, server.coordinator.tasks[TASK].round
        record = server.database.rounds(TASK)[-1]
        assert (record.state, record.refused, record.proxy) == (RoundState.RELEASED.value, {}, None), record.reason
        reports = server.database.reports(TASK, 1, "")
        assert set(reports) == set(TIERS)
        assert all(isinstance(report, m.PrototypeReport) for report in reports.values())
        assert server.database.releases(TASK)[-1].counter == 2
        job = read_job(tmp_path / "server/jobs/vehicle-1")
        assert (job.proxies, job.proxy) == (job.anchors, "")
    finally:
        for agent in agents:
            agent.close()
        server.close()


def simulated(device: DeviceId, call: m.PrototypeCall) -> m.PrototypeReport:
    """Class means of nothing in particular, of the device's tier."""
    at = int(device.removeprefix("dev-"))
    means = np.random.default_rng(at).normal(size=(SPEC.outputs, FEATURES)).astype(np.float32)
    tier = ("nano", "small", "base")[at % 3]
    told = told_arrays(means, np.full(SPEC.outputs, 30))
    return m.PrototypeReport(call.task, call.label_space, call.number, call.release, tier, *told)  # type: ignore[arg-type]


def rounds(**changes: object) -> RoundsConfig:
    """One round of twelve devices."""
    plan: dict[str, object] = {"limit": 1, "quorum": 12, "wait_for": 12, "deadline_s": 60, "pause_s": 0}
    return RoundsConfig(**plan | changes)  # type: ignore[arg-type]


def test_reports_that_do_not_fit_are_refused_with_a_reason_for_each_device(tmp_path: Path) -> None:
    """Another label space, release, kind of report, class, and NaN: the round's record says which device and why."""
    write_packs(tmp_path)
    clock, broker = FakeClock(), MemoryBroker()
    config = centre_config(tmp_path, rounds=rounds(quorum=6), distil=DistilConfig(strategy="fedtgp", trust_share=0))

    def told(device: DeviceId, call: m.PrototypeCall) -> m.PrototypeReport:
        good = simulated(device, call)
        means, counts = np.zeros((256, FEATURES), np.float32), np.zeros(256, np.int64)
        counts[6] = 5
        classes, rows, levels = told_arrays(means, counts)
        odd: dict[str, dict[str, Any]] = {
            "dev-0": {"label_space": "cd34"},
            "dev-1": {"release": call.release - 1},
            "dev-2": {"release": call.release + 1},
            "dev-3": {"classes": classes, "means": rows, "counts": levels},
            "dev-4": {"round": call.number + 1},
        }
        return msgspec.structs.replace(good, **odd.get(device, {}))

    server = make_server(config, broker, clock, scripted_distiller([0.4, 0.5]))
    try:
        server.start()
        fleet = FleetSimulator(in_memory(broker), SPEC, clock, 12, class_means=told)
        fleet.start()
        drive(server, fleet, clock, rounds_closed(server, 1), "end of the round")
        record = server.database.rounds(TASK)[-1]
        assert record.state == RoundState.RELEASED.value
        assert record.refused == {
            "dev-0": "wrong-label-space",
            "dev-1": "other-release",
            "dev-2": "unknown-release",
            "dev-3": "wrong-outputs",
        }
        assert fleet.devices[4].acks[False, "round-closed"] == 1, "another round is not this one's to refuse"
        assert set(server.database.answered(TASK, 1)) == {f"dev-{at}" for at in range(5, 12)}
    finally:
        server.close()


def test_junk_on_the_wire_is_a_reason_too(tmp_path: Path) -> None:
    """A report whose means are NaN is named as such in the round, and the round goes on without it."""
    write_packs(tmp_path)
    clock = FakeClock()

    def spoil(topic: str, payload: bytes) -> list[bytes]:
        if "/dev-3/up/knowledge" not in topic:
            return [payload]
        means = simulated(DeviceId("dev-3"), m.PrototypeCall("vehicle", SPEC.label_space, 1, 1, 0.0, open=True)).means
        assert means.data in payload
        return [payload.replace(means.data, b"\xff" * len(means.data))]

    broker = MemoryBroker(fault=spoil)
    config = centre_config(tmp_path, rounds=rounds(quorum=11), distil=DistilConfig(strategy="fedproto", trust_share=0))
    server = make_server(config, broker, clock, scripted_distiller([0.4, 0.5]))
    try:
        server.start()
        fleet = FleetSimulator(in_memory(broker), SPEC, clock, 12, class_means=simulated)
        fleet.start()
        drive(server, fleet, clock, rounds_closed(server, 1), "end of the round")
        record = server.database.rounds(TASK)[-1]
        assert record.state == RoundState.RELEASED.value
        assert set(record.refused) == {"dev-3"}
        assert "not-finite" in record.refused["dev-3"]
    finally:
        server.close()


def beside_speed(config: ServerConfig, folder: Path) -> ServerConfig:
    """The same server with a forecast task too, whose votes it asks for."""
    steps = np.arange(90.0)
    for name in PACKS:
        values = (50 + 8 * np.sin(steps / 30))[:, None].astype(np.float32)
        pack = SeriesPack(values=values, time_s=300 * steps, interval_s=300, sensors=("a",), unit="mph")
        save_pack(folder / f"speed-{name}.npz", pack, title=name)
    anchors, proxies, validation = (str(folder / f"speed-{name}.npz") for name in PACKS)
    speed = TaskConfig(task="speed", anchors=anchors, proxies=proxies, validation=validation)
    means = msgspec.structs.replace(config.tasks["vehicle"], strategy="fedproto", proxies=None)
    both = msgspec.structs.replace(config, tasks={"vehicle": means, "speed": speed})
    begin(both, time.time())
    return both


def test_a_task_asks_for_class_means_beside_one_that_asks_for_votes(tmp_path: Path) -> None:
    """Cameras and sensors on one server: class means of the cameras become a release, and sensors have proxies."""
    write_packs(tmp_path)
    clock, broker = FakeClock(), MemoryBroker()
    config = beside_speed(centre_config(tmp_path, rounds=rounds()), tmp_path)
    server = make_server(config, broker, clock, scripted_distiller([0.4, 0.4, 0.5]))
    try:
        server.start()
        fleet = FleetSimulator(in_memory(broker), SPEC, clock, 12, class_means=simulated)
        fleet.start()
        drive(server, fleet, clock, rounds_closed(server, 1), "end of the round")
        assert server.database.rounds(TASK)[-1].state == RoundState.RELEASED.value
        assert set(server.database.reports(TASK, 1, "")) == {f"dev-{at}" for at in range(12)}
        asked = {name: task.setup.proxy is not None for name, task in server.coordinator.tasks.items()}
        assert asked == {"vehicle": False, "speed": True}
        jobs = {name: read_job(tmp_path / "server/jobs" / name) for name in ("vehicle-1", "speed-0")}
        assert {name: job.settings.strategy for name, job in jobs.items()} == {
            "vehicle-1": "fedproto",
            "speed-0": "feddistill",
        }
    finally:
        server.close()


@pytest.mark.parametrize("after", ["fedproto", "fedtgp"])
def test_a_server_that_is_killed_takes_the_rest_of_the_reports(tmp_path: Path, after: str) -> None:
    """Mid-round: the round is called again as it was, nobody answers twice, also under another rule for class means."""
    write_packs(tmp_path)
    clock, broker = FakeClock(), MemoryBroker()
    config = centre_config(tmp_path, rounds=rounds(), distil=DistilConfig(strategy="fedproto", trust_share=0))
    fleet = FleetSimulator(
        in_memory(broker),
        SPEC,
        clock,
        12,
        class_means=simulated,
        patience=lambda device: 0.0 if device < "dev-3" else 5.0,
    )
    steady = scripted_distiller([0.4, 0.5])
    first = make_server(config, broker, clock, steady)
    first.start()
    fleet.start()
    drive(first, fleet, clock, lambda: len(first.database.answered(TASK, 1)) >= 4, "first reports")
    first.transport.cut("killed")  # type: ignore[attr-defined]
    first.database.close()
    config = msgspec.structs.replace(config, distil=DistilConfig(strategy=after, trust_share=0))
    second = make_server(config, broker, clock, steady)
    try:
        second.start()
        drive(second, fleet, clock, rounds_closed(second, 1), "end of the round")
        assert second.database.rounds(TASK)[-1].state == RoundState.RELEASED.value
        assert [device.reports for device in fleet.devices] == [1] * 12
        assert len(second.database.answered(TASK, 1)) == 12
    finally:
        second.close()


@pytest.mark.timeout(1200)
def test_a_round_of_class_means_can_be_done_again_bit_for_bit(tmp_path: Path) -> None:
    """The job's manifest is met by a replay, trained prototypes and all."""
    write_packs(tmp_path, samples=48)
    clock, broker = FakeClock(), MemoryBroker()
    distil = DistilConfig(strategy="fedtgp", first_steps=6, steps=4, batch=16, seed=1)
    config = centre_config(
        tmp_path, rounds=rounds(), distil=distil, judge=JudgeRules(tolerance=1.0, cohort_tolerance=1.0)
    )
    server = make_server(config, broker, clock, in_process)
    try:
        server.start()
        fleet = FleetSimulator(in_memory(broker), SPEC, clock, 12, class_means=simulated)
        fleet.start()
        drive(server, fleet, clock, rounds_closed(server, 1), "end of the round")
        again = replay(tmp_path / "server", server.database.rounds(TASK)[-1], in_process)
        assert again.same, [pair for pair in again.outcomes if not pair.same]
        assert len([pair for pair in again.outcomes if pair.what.startswith("report/")]) == 12
    finally:
        server.close()
