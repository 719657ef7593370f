"""The whole loop in one process: a thousand devices, the real messages, store and distiller, a clock that is told."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from broker_server.config import DistilConfig, RoundsConfig
from broker_server.distil_worker import run_job
from broker_server.round_facts import manifest_of, reports_of
from broker_server.rounds import RoundState
from edge_models.tasks import load_task
from edge_protocol import messages as m
from edge_protocol.ids import DeviceId, TaskId
from edge_protocol.transport.memory import MemoryBroker
from tests.fakes.centre import centre_config, drive, make_server, rounds_closed, scripted_distiller, write_packs
from tests.fakes.clock import FakeClock
from tests.fakes.fleet_simulator import Faults, FleetSimulator, class_votes, in_memory

TASK = TaskId("vehicle")


def in_process(folder: Path, _cancelled: threading.Event) -> None:
    """The real distiller, without its process."""
    run_job(folder, lambda _: None)


@pytest.mark.timeout(300)
def test_a_thousand_devices_teach_the_shared_model(tmp_path: Path) -> None:
    """From nothing to a second release that is better: anchors, release, reports, distillation, judge, release."""
    truth = write_packs(tmp_path, samples=72)["proxies"].targets
    clock, broker = FakeClock(), MemoryBroker()
    config = centre_config(
        tmp_path,
        rounds=RoundsConfig(limit=1, quorum=900, wait_for=1000, deadline_s=60, pause_s=0),
        distil=DistilConfig(first_steps=30, steps=60, batch=16, trust_share=0, seed=1),
    )

    def knowledge(device: DeviceId, call: m.RoundCall) -> m.ClassVotes:
        rng = np.random.default_rng(int(device.removeprefix("dev-")))
        wrong = rng.random(len(truth)) < 0.2
        return class_votes(np.where(wrong, rng.integers(0, 6, len(truth)), truth), 6)

    server = make_server(config, broker, clock, in_process)
    try:
        server.start()
        fleet = FleetSimulator(in_memory(broker), load_task(TASK), clock, 1000, knowledge=knowledge)
        fleet.start()
        drive(server, fleet, clock, rounds_closed(server, 1), "end of the round")
        record = server.database.rounds(TASK)[-1]
        assert (record.state, record.refused) == (RoundState.RELEASED.value, {}), record.reason
        drive(server, fleet, clock, lambda: all(d.running == 2 for d in fleet.devices), "second deployment")
        first, second = server.database.releases(TASK)
        assert np.mean([second.metrics[f"{t}/accuracy"] for t in ("nano", "small", "base")]) > np.mean(
            [first.metrics[f"{t}/accuracy"] for t in ("nano", "small", "base")]
        )
        assert sum(d.reports for d in fleet.devices) == 1000
    finally:
        server.close()


def test_loss_repetition_and_disorder_change_nothing(tmp_path: Path) -> None:
    """With a tenth of all messages lost, repeated and late, each device counts once and every outbox empties."""
    truth = write_packs(tmp_path)["proxies"].targets
    clock, faults = FakeClock(), Faults(seed=4, lose=0.1, repeat=0.1, delay=0.1)
    broker = MemoryBroker(fault=faults)
    rounds = RoundsConfig(limit=2, quorum=200, wait_for=200, deadline_s=600, pause_s=0)
    server = make_server(centre_config(tmp_path, rounds=rounds), broker, clock, scripted_distiller([0.4, 0.5, 0.6]))
    try:
        server.start()
        fleet = FleetSimulator(
            in_memory(broker), load_task(TASK), clock, 200, knowledge=lambda *_: class_votes(truth, 6), fetch=False
        )
        fleet.start()
        drive(server, fleet, clock, rounds_closed(server, 2), "end of round 2")
        drive(server, fleet, clock, lambda: not any(d.outbox for d in fleet.devices), "empty outboxes")
        assert min(faults.happened[kind] for kind in ("lose", "repeat", "delay")) > 50
        assert server.pump.drops["repeated"] > 50
        assert [r.state for r in server.database.rounds(TASK)] == ["released"] * 3
        assert len(server.database.answered(TASK, 2)) == 200
        assert not any(reason for device in fleet.devices for _, reason in device.acks)
    finally:
        server.close()


def test_late_devices_miss_the_deadline_and_are_kept_for_later_rounds(tmp_path: Path) -> None:
    """A round ends at its deadline with its quorum; a report that comes later is kept, and would count in the next."""
    truth = write_packs(tmp_path)["proxies"].targets
    clock, late = FakeClock(), {f"/dev-{i}/" for i in range(10)}

    def slow(topic: str, payload: bytes) -> list[bytes]:
        return [] if topic.endswith("/knowledge") and any(name in topic for name in late) else [payload]

    broker = MemoryBroker(fault=slow)
    rounds = RoundsConfig(limit=1, quorum=30, wait_for=40, deadline_s=60, pause_s=0)
    server = make_server(centre_config(tmp_path, rounds=rounds), broker, clock, scripted_distiller([0.4, 0.5]))
    try:
        server.start()
        fleet = FleetSimulator(
            in_memory(broker), load_task(TASK), clock, 40, knowledge=lambda *_: class_votes(truth, 6)
        )
        fleet.start()
        drive(server, fleet, clock, rounds_closed(server, 1), "end of the round")
        late.clear()
        drive(server, fleet, clock, lambda: not any(d.outbox for d in fleet.devices), "empty outboxes")
        assert not any(reason for device in fleet.devices for _, reason in device.acks)
        record = server.database.rounds(TASK)[-1]
        assert record.proxy is not None
        manifest = manifest_of(Path(server.config.state_dir), record)
        assert manifest is not None
        assert len(manifest.reports) == 30
        kept = server.database.reports(TASK, 2, record.proxy.sha256)
        assert {report.round for report in kept.values()} == {1}
        assert len(kept) == 40
        assert record.state == RoundState.RELEASED.value
        assert 60 <= record.closed_s - record.opened_s < 70
    finally:
        server.close()


@pytest.mark.parametrize("where", ["collecting", "distilling"])
def test_a_server_that_is_dropped_goes_on_where_it_was(tmp_path: Path, where: str) -> None:
    """A server dropped without a close, mid-round or mid-distillation, ends the round with the reports it had."""
    truth = write_packs(tmp_path)["proxies"].targets
    clock, broker = FakeClock(), MemoryBroker()
    config = centre_config(tmp_path, rounds=RoundsConfig(limit=1, quorum=20, wait_for=20, deadline_s=600, pause_s=0))
    seen: list[str] = []
    steady = scripted_distiller([0.4, 0.5])

    def dies_once(folder: Path, cancelled: threading.Event) -> None:
        if where == "distilling" and folder.name == "vehicle-1" and not seen:
            seen.append(folder.name)
            raise KeyboardInterrupt
        steady(folder, cancelled)

    fleet = FleetSimulator(
        in_memory(broker),
        load_task(TASK),
        clock,
        20,
        knowledge=lambda *_: class_votes(truth, 6),
        patience=lambda device: 0.0 if device < "dev-15" else 5.0,
    )
    first = make_server(config, broker, clock, dies_once)
    first.start()
    fleet.start()
    try:
        drive(
            first, fleet, clock, lambda: len(first.database.answered(TASK, 1)) >= 6 and where == "collecting", "reports"
        )
    except KeyboardInterrupt:
        assert where == "distilling"
    first.transport.cut("killed")
    first.database.close()
    second = make_server(config, broker, clock, dies_once)
    try:
        second.start()
        drive(second, fleet, clock, rounds_closed(second, 1), "end of the round")
        assert second.database.rounds(TASK)[-1].state == RoundState.RELEASED.value
        assert [device.reports for device in fleet.devices] == [1] * 20
    finally:
        second.close()


def test_a_server_that_comes_back_with_other_proxies_asks_anew(tmp_path: Path) -> None:
    """What was collected on the old ones is given up with the reason; the same devices answer the new ones."""
    clock, broker, truth = FakeClock(), MemoryBroker(), write_packs(tmp_path)["proxies"].targets
    asked = []

    def knowledge(_device: DeviceId, call: m.RoundCall) -> m.ClassVotes:
        asked.append((call.number, call.proxy.sha256))
        return class_votes(truth, 6)

    fleet = FleetSimulator(
        in_memory(broker),
        load_task(TASK),
        clock,
        4,
        knowledge=knowledge,
        patience=lambda device: 0.0 if device < "dev-2" else 5.0,
    )
    rounds = RoundsConfig(limit=2, quorum=4, wait_for=4, deadline_s=600, pause_s=0)
    config = centre_config(tmp_path, rounds=rounds)
    first = make_server(config, broker, clock, scripted_distiller([0.4]))
    first.start()
    fleet.start()
    drive(first, fleet, clock, lambda: len(first.database.answered(TASK, 1)) == 2, "reports")
    first.transport.cut("killed")
    first.database.close()
    truth = write_packs(tmp_path, seed=4)["proxies"].targets
    second = make_server(config, broker, clock, scripted_distiller([0.5]))
    try:
        second.start()
        drive(second, fleet, clock, rounds_closed(second, 2), "end of the round")
        told = [(record.state, reports_of(second.database, record)) for record in second.database.rounds(TASK)]
        assert told == [("released", 0), ("abandoned", 2), ("released", 4)]
        assert "another proxy set" in second.database.rounds(TASK)[1].reason
        assert len({proxy for number, proxy in asked if number == 1}) == 1
        assert {proxy for number, proxy in asked if number == 2}.isdisjoint(
            {proxy for number, proxy in asked if number == 1}
        )
    finally:
        second.close()


def test_a_device_that_remembers_wrongly_answers_again_in_full(tmp_path: Path) -> None:
    """A restarted server knows what it was told; one device with another base repeats its report, one has no base."""
    truth = write_packs(tmp_path)["proxies"].targets
    clock, broker, rng = FakeClock(), MemoryBroker(), np.random.default_rng(0)

    def knowledge(_device: DeviceId, _call: m.RoundCall) -> m.ClassVotes:
        return class_votes(np.where(rng.random(len(truth)) < 0.1, rng.integers(0, 6, len(truth)), truth), 6)

    fleet = FleetSimulator(in_memory(broker), load_task(TASK), clock, 12, knowledge=knowledge)
    sizes = []
    for number, scores in ((1, [0.4, 0.5]), (2, [0.6])):
        rounds = RoundsConfig(limit=number, quorum=12, wait_for=12, deadline_s=600, pause_s=0)
        server = make_server(centre_config(tmp_path, rounds=rounds), broker, clock, scripted_distiller(scores))
        try:
            server.start()
            if number == 1:
                fleet.start()
            drive(server, fleet, clock, rounds_closed(server, number), "end of the round")
            drive(server, fleet, clock, lambda: not any(device.outbox for device in fleet.devices), "empty outboxes")
            proxy = server.coordinator.tasks[TASK].setup.proxy
            assert proxy is not None
            stored = server.database.reports(TASK, number, proxy.sha256)
        finally:
            server.close()
        assert {device.name: device.told.known for device in fleet.devices} == stored, "both sides have the same base"
        sizes.append(fleet.devices[5].told.bytes)
        other = stored[fleet.devices[5].name]
        assert isinstance(other, m.KnowledgeReport)
        fleet.devices[0].told.known, fleet.devices[1].told.known = other, None
    assert [device.acks[False, "unknown-base"] for device in fleet.devices] == [1] + [0] * 11
    assert sizes[1] < 2 * sizes[0], "the second report took fewer bytes than the first"
