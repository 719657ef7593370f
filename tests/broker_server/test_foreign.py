"""After an older backup was brought back devices run releases that their server does not have: counted on, and told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_server.effects import SaveDevice, SaveState
from broker_server.foreign import REACH, foreign, next_counter, warnings
from broker_server.records import DeviceRecord, DeviceTask, StoredState
from broker_server.store.database import Database
from edge_protocol.ids import DeviceId, TaskId
from edge_protocol.messages import DeviceState
from tests.broker_server.rollout_scene import release, weights_of
from tests.broker_server.scenes import TASK


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """With releases 1 and 2, and no device."""
    made = Database(tmp_path / "server.db")
    for counter in (1, 2):
        made.add_release(release(counter))
    yield made
    made.close()


def tell(database: Database, name: str, counter: int, *, state: str = "online", weights: str = "") -> None:
    """Have a device be known to run a release."""
    runs = DeviceTask(task=TASK, label_space="l", tier="nano", student="s", release=counter, weights=weights)
    facts = {"board": "b", "software": "1", "runtime": "ort", "cores": 4, "memory_bytes": 1}
    record = DeviceRecord(device=DeviceId(name), state=state, boot_id=b"boot....", tasks=(runs,), seen_s=1.0, **facts)  # type: ignore[arg-type]
    database.apply([SaveDevice(record)])


def test_the_next_counter_is_above_what_devices_tell_of(database: Database) -> None:
    """At their birth or in a state since; those of another task, and of a device that was retired, do not count."""
    assert next_counter(database, TASK) == 3
    tell(database, "cam-1", 5)
    assert next_counter(database, TASK) == 6
    said = StoredState(device=DeviceId("cam-1"), at_s=2.0, state=DeviceState(TASK, "idle", 8, {}, {}))
    database.apply([SaveState(said)])
    assert next_counter(database, TASK) == 9
    assert next_counter(database, TaskId("speed")) == 1
    assert next_counter(database, TASK, above=40) == 41
    tell(database, "cam-1", 5, state="retired")
    assert next_counter(database, TASK) == 3


def test_a_device_that_lies_cannot_use_the_counters_up(database: Database) -> None:
    """What it says beyond reach is not counted on, but told with how to go above it; what is in reach is."""
    tell(database, "liar", 2**53)
    assert next_counter(database, TASK) == 3
    assert f"--above {2**53}" in foreign(database)[0].fix
    tell(database, "liar", 2 + REACH)
    assert next_counter(database, TASK) == 3 + REACH
    assert "--above" not in foreign(database)[0].fix


def test_what_devices_run_and_the_server_lacks_is_told(database: Database) -> None:
    """A counter that is not here, and other weights under one that is; one line of warning for each task."""
    for name, counter, weights in (
        ("new", 0, ""),
        ("same", 2, weights_of(2, "nano")),
        ("unsaid", 2, ""),
        ("other", 2, "0" * 64),
        ("ahead", 3, "0" * 64),
    ):
        tell(database, name, counter, weights=weights)
    found = {each.device: each.says for each in foreign(database)}
    assert set(found) == {"other", "ahead"}
    assert "runs release 3 of vehicle, which this server does not have" in found[DeviceId("ahead")]
    assert "runs other weights as release 2 of vehicle" in found[DeviceId("other")]
    (line,) = warnings(foreign(database))
    assert line.startswith("ahead (and 1 more) runs release 3")
    assert line.endswith("release anew, above it: roadcast release again vehicle N")
