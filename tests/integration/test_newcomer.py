"""A device that joins a fleet late, with few labels: real server, worker, agents and trainers, each a process."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from broker_server.brokers import Broker
from broker_server.config import RoundsConfig
from broker_server.round_facts import find_round, manifest_of, round_details
from broker_server.status import open_database
from edge_client.installed import HeadChoice
from edge_protocol.ids import DeviceId, TaskId
from edge_protocol.messages import KnowledgeReport
from edge_protocol.task import Tier
from tests.edge_client.device_rig import image_pack
from tests.fakes.brokers import mosquitto_broker
from tests.fakes.real_fleet import WITHIN_S, RealFleet

__all__ = ["mosquitto_broker"]
pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(3600)]
VETERANS: dict[str, Tier] = {"cam-1": "nano", "cam-2": "nano"}
NEW, LABELS = DeviceId("cam-3"), 8


def rounds(number: int, devices: int) -> RoundsConfig:
    """Up to so many rounds, each with so many devices."""
    return RoundsConfig(limit=number, quorum=devices, wait_for=devices, deadline_s=WITHIN_S, pause_s=0)


def test_a_newcomer_starts_on_what_the_veterans_taught_and_answers_the_next_round(
    tmp_path: Path, mosquitto_broker: Broker
) -> None:
    """Round 1 makes release 2: the first that a device with 8 labels runs, whose head it fits; round 2 counts it."""
    fleet = RealFleet(tmp_path, mosquitto_broker, VETERANS, rounds(1, 2))
    with ExitStack() as stack:
        with fleet.process("server"):
            for veteran in VETERANS:
                stack.enter_context(fleet.process(veteran))
            first = fleet.wait_round(1)
            assert (first["state"], first["release"], first["reports"]) == ("released", 1, 2), first["reason"]
            for veteran in VETERANS:
                fleet.wait_running(veteran, 2)
        fleet.call(rounds(2, 3))
        (tmp_path / "few").mkdir()
        fleet.add(NEW, "nano", image_pack(tmp_path / "few", LABELS))
        stack.enter_context(fleet.process("server"))
        stack.enter_context(fleet.process(NEW))
        fleet.wait_running(NEW, 2)
        assert_head(tmp_path / NEW / "vehicle/heads")
        second = fleet.wait_round(2)
    assert (second["release"], second["reports"], second["refused"]) == (2, 3, {})
    assert_counts(tmp_path / "server")


def assert_head(folder: Path) -> None:
    """The newest release is the first that the newcomer ran, and it serves with its own biases."""
    assert [path.name for path in folder.glob("*.json")] == ["2.json"]
    choice = msgspec.json.decode((folder / "2.json").read_bytes(), type=HeadChoice)
    assert (choice.chosen, choice.head, choice.n_train) == ("personal", "bias", LABELS)


def assert_counts(state_dir: Path) -> None:
    """Round 2 was distilled from what the newcomer said from release 2, beside the veterans."""
    database = open_database(state_dir)
    try:
        record = find_round(database, "vehicle", 2)
        assert record.proxy is not None
        said = database.reports(TaskId("vehicle"), 2, record.proxy.sha256)[NEW]
        shown = round_details(record, manifest_of(state_dir, record))["devices"]
    finally:
        database.close()
    assert isinstance(said, KnowledgeReport)
    assert (said.round, said.release, said.examples) == (2, 2, LABELS)
    assert {row["device"]: (row["counts"], row["age"]) for row in shown} == dict.fromkeys([*VETERANS, NEW], (True, 0))
