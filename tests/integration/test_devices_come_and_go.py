"""Devices that stay away for many rounds and come back, or join late: who counts, with what, and for how long."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from broker_server.config import DistilConfig, RoundsConfig
from broker_server.round_facts import find_round, manifest_of, round_details
from broker_server.round_manifest import RoundManifest
from broker_server.server import Server
from broker_server.store.database import REPORT_ROUNDS
from edge_models.tasks import load_task
from edge_protocol import messages as m
from edge_protocol.ids import DeviceId, TaskId
from edge_protocol.transport.memory import MemoryBroker
from tests.fakes.centre import centre_config, drive, make_server, rounds_closed, scripted_distiller, write_packs
from tests.fakes.clock import FakeClock
from tests.fakes.fleet_simulator import FleetSimulator, class_votes, in_memory
from tests.fakes.round_state import LENIENT, in_process

TASK = TaskId("vehicle")
STEADY = 4
BACK = REPORT_ROUNDS + 3
"""The round in which the device that was away answers again."""


def manifest(server: Server, number: int) -> RoundManifest:
    """What a round was distilled from."""
    found = manifest_of(Path(server.config.state_dir), find_round(server.database, TASK, number))
    assert found is not None
    return found


def ages(server: Server, number: int) -> dict[str, int]:
    """How old each report was that counted in a round."""
    return {device: number - said for device, said in manifest(server, number).reports.items()}


def test_a_device_that_was_away_and_one_that_joins_late_are_taken_as_they_are(tmp_path: Path) -> None:
    """An old report ages, then no longer counts; both answer their next round from the release that is current then."""
    truth = write_packs(tmp_path)["proxies"].targets
    clock, broker, called = FakeClock(), MemoryBroker(), dict[tuple[str, int], int]()
    rounds = RoundsConfig(limit=BACK, quorum=STEADY, wait_for=STEADY, deadline_s=60, pause_s=5)
    distiller = scripted_distiller([0.02 * at for at in range(1, BACK + 3)])
    server = make_server(centre_config(tmp_path, rounds=rounds), broker, clock, distiller)

    def knowledge(device: DeviceId, call: m.RoundCall) -> m.ClassVotes:
        called[device, call.number] = call.release
        return class_votes(truth, 6)

    fleet = FleetSimulator(in_memory(broker), load_task(TASK), clock, STEADY + 2, knowledge=knowledge)
    *_, away, late = fleet.devices
    try:
        server.start()
        for device in fleet.devices[:-1]:
            device.start()
        drive(server, fleet, clock, rounds_closed(server, 1), "end of round 1")
        away.transport.cut("out of power")
        drive(server, fleet, clock, rounds_closed(server, BACK - 1), "end of the rounds without it")
        away.transport.start()
        late.start()
        drive(server, fleet, clock, rounds_closed(server, BACK), "end of the round with both")
        assert [ages(server, number).get(away.name) for number in range(1, BACK + 1)] == [
            *range(REPORT_ROUNDS),
            *[None] * (BACK - 1 - REPORT_ROUNDS),
            0,
        ]
        assert ages(server, BACK) == dict.fromkeys((device.name for device in fleet.devices), 0)
        for device in (away, late):
            assert called[device.name, BACK] == BACK
            assert device.acks[True, ""] >= 2
            assert not any(reason for _, reason in device.acks)
        assert not any((late.name, number) in called for number in range(BACK))
        assert server.database.newest()[TASK] == BACK + 1
    finally:
        server.close()


def test_a_device_that_is_slower_than_its_rounds_teaches_later_ones(tmp_path: Path) -> None:
    """Rounds close at three reports of four; the fourth device's answer counts in the next one, a round old."""
    truth = write_packs(tmp_path)["proxies"].targets
    clock, broker = FakeClock(), MemoryBroker()
    rounds = RoundsConfig(limit=3, quorum=2, enough=3, wait_for=4, deadline_s=600, pause_s=30)
    distiller = scripted_distiller([0.1] * 5)  # no candidate is better: no release takes the trainer from anyone
    server = make_server(centre_config(tmp_path, rounds=rounds), broker, clock, distiller)
    fleet = FleetSimulator(
        in_memory(broker),
        load_task(TASK),
        clock,
        4,
        knowledge=lambda *_: class_votes(truth, 6),
        patience=lambda device: 20.0 if device == "dev-3" else 0.0,
    )
    slow = fleet.devices[-1]
    try:
        server.start()
        fleet.start()
        drive(server, fleet, clock, rounds_closed(server, 3), "end of round 3")
        assert [ages(server, number).get(slow.name) for number in (1, 2, 3)] == [None, 1, 1]
        assert [set(ages(server, 3).values()), slow.acks] == [{0, 1}, {(True, ""): slow.acks[True, ""]}]
        assert find_round(server.database, TASK, 3).refused == {}
        assert slow.acks[True, ""] >= 3
    finally:
        server.close()


@pytest.mark.timeout(600)
def test_the_report_of_a_device_that_is_away_loses_weight(tmp_path: Path) -> None:
    """With the real worker, what a device said in round 1 has less of the teacher in round 2, and all can read so."""
    truth = write_packs(tmp_path, samples=24)["proxies"].targets
    clock, broker = FakeClock(), MemoryBroker()
    config = centre_config(
        tmp_path,
        rounds=RoundsConfig(limit=2, quorum=3, wait_for=3, deadline_s=60, pause_s=0),
        distil=DistilConfig(first_steps=4, steps=2, batch=16, trust_share=0, half_life=0.5, seed=1),
        judge=LENIENT,
    )

    def knowledge(device: DeviceId, call: m.RoundCall) -> m.ClassVotes | None:
        gone = device == "dev-0" and call.number > 1
        wrong = np.random.default_rng(int(device[-1])).random(len(truth)) < 0.1
        return None if gone else class_votes(np.where(wrong, 0, truth), 6)

    server = make_server(config, broker, clock, in_process)
    fleet = FleetSimulator(in_memory(broker), load_task(TASK), clock, 4, knowledge=knowledge)
    try:
        server.start()
        fleet.start()
        drive(server, fleet, clock, rounds_closed(server, 2), "end of round 2")
        assert ages(server, 2) == {"dev-0": 1, "dev-1": 0, "dev-2": 0, "dev-3": 0}
        first, second = (manifest(server, number).result.teacher["share/dev-0"] for number in (1, 2))
        assert 0 < second < 0.6 * first
        shown = round_details(find_round(server.database, TASK, 2), manifest(server, 2))["devices"]
        assert [(row["device"], row["age"]) for row in shown if row["age"]] == [("dev-0", 1)]
    finally:
        server.close()
