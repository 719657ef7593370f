"""A release that an operator pushes beside a running server, and the round that was called before it was seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from broker_server.config import RoundsConfig
from broker_server.pump import POLL_RELEASES_S
from broker_server.setup import push_release
from edge_models.tasks import load_task
from edge_protocol import messages as m
from edge_protocol.codec import decode
from edge_protocol.ids import FleetId, TaskId
from edge_protocol.topics import Topics
from edge_protocol.transport.memory import MemoryBroker
from tests.fakes.centre import (
    centre_config,
    drive,
    make_server,
    rounds_closed,
    scripted_distiller,
    write_artifacts,
    write_packs,
)
from tests.fakes.clock import FakeClock
from tests.fakes.fleet_simulator import FleetSimulator, class_votes, in_memory

TASK, SIM = TaskId("vehicle"), FleetId("sim")


def retained(broker: MemoryBroker) -> tuple[int, int, bool]:
    """Number and release of the round that the broker keeps, and whether it is open."""
    call = decode(broker.retained[Topics(SIM).round(TASK)], kind="round", fleet=SIM).body
    assert isinstance(call, m.RoundCall)
    return call.number, call.release, call.open


def test_a_round_called_before_a_pushed_release_is_seen_is_superseded(tmp_path: Path) -> None:
    """For a second the call names release 1 with release 2 on the disk; then that round is void, the next is on 2."""
    truth = write_packs(tmp_path)["proxies"].targets.astype(np.int64)
    clock, broker, spec = FakeClock(), MemoryBroker(), load_task(TASK)
    rounds = RoundsConfig(limit=3, quorum=2, wait_for=2, deadline_s=60, pause_s=1.5 * POLL_RELEASES_S)
    config = centre_config(tmp_path, rounds=rounds)
    server = make_server(config, broker, clock, scripted_distiller([0.5, 0.4, 0.6]))
    fleet = FleetSimulator(in_memory(broker), spec, clock, 2, knowledge=lambda *_: class_votes(truth, 6))
    try:
        server.start()
        fleet.start()
        drive(server, fleet, clock, rounds_closed(server, 1), "a candidate that the judge refuses")
        clock.advance(POLL_RELEASES_S)
        server.step()
        write_artifacts(tmp_path / "mine", spec, seed=9)
        push_release(config, TASK, tmp_path / "mine", notes="", now=clock())
        clock.advance(POLL_RELEASES_S / 2)
        server.step()
        assert (retained(broker), server.database.newest()[TASK]) == ((2, 1, True), 2)
        clock.advance(POLL_RELEASES_S / 2)
        server.step()
        assert retained(broker) == (2, 1, False)
        assert server.database.rounds(TASK)[-1].reason == "release 2 was pushed meanwhile"
        drive(server, fleet, clock, rounds_closed(server, 3), "the round after it")
        assert (retained(broker), server.database.newest()[TASK]) == ((3, 2, False), 3), "closed, it names its start"
    finally:
        server.close()
