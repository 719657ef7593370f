"""What is told of single rounds."""

from __future__ import annotations

from pathlib import Path

import msgspec

from broker_server import effects as e
from broker_server.config import RoundsConfig
from broker_server.distil_job import DistilSettings
from broker_server.effects import Effect
from broker_server.events import Distilled
from broker_server.records import RoundRecord
from broker_server.round_facts import reports_of, round_details
from broker_server.round_manifest import RoundManifest
from broker_server.rounds import RoundState, restored
from broker_server.store.database import Database
from edge_protocol.ids import DeviceId
from tests.broker_server.scenes import SPEC, TASK, Scene, result

ROUNDS = RoundsConfig(limit=9, quorum=2, enough=2, wait_for=3, deadline_s=60, pause_s=5)


def test_a_device_whose_older_report_counts_has_the_reason_why_the_fresh_one_does_not() -> None:
    """It is listed once, as counting, with the reason; who is heard without complaint has none."""
    scene = Scene()
    scene.collecting()
    scene.core.unreadable(DeviceId("cam-0"), "not-finite: NaN", scene.now, TASK)
    scene.core.unreadable(DeviceId("cam-2"), "malformed: junk", scene.now, TASK)
    manifest = RoundManifest(
        task=TASK,
        round=1,
        release=1,
        base={},
        proxy="",
        settings=DistilSettings(),
        environment={},
        inputs={},
        reports={"cam-0": 0, "cam-1": 1},
        outputs={},
        result=result(0.5, 0.6),
    )
    rows = round_details(scene.round.record(SPEC), manifest)["devices"]
    told = [(row["device"], row["counts"], row["age"], row["reason"]) for row in rows]
    assert told == [
        ("cam-0", True, 1, "not-finite: NaN"),
        ("cam-1", True, 0, ""),
        ("cam-2", False, None, "malformed: junk"),
    ]


def written(database: Database, effects: list[Effect]) -> None:
    """Save what a pump would."""
    database.apply([effect for effect in effects if isinstance(effect, e.SaveRound | e.SaveReport)])


def listed(database: Database) -> list[int | None]:
    """The number of reports of every round."""
    return [reports_of(database, record) for record in database.rounds()]


def test_each_round_keeps_the_number_of_its_reports(tmp_path: Path) -> None:
    """Counted while they come, kept when it closes: whatever a device reports later, late, or after a restart."""
    database, scene = Database(tmp_path / "server.db"), Scene(rounds=ROUNDS)
    written(database, scene.first_release())
    assert listed(database) == [0]
    written(database, scene.collecting())
    for device in ("cam-0", "cam-1"):
        assert listed(database)[-1] == int(device[-1])
        written(database, scene.report(device))
    assert scene.round.state is RoundState.DISTILLING
    written(database, scene.report("cam-2", round=1))
    record = database.rounds()[-1]
    again = restored(record, database.answered(TASK, 1), ROUNDS.quorum)
    assert (listed(database), len(again.answered), again.record(SPEC).reports) == ([0, 2], 3, 2)
    written(database, scene.core.learn(Distilled(TASK, 1, result(0.6, 0.5)), scene.now))
    scene.now += ROUNDS.pause_s
    written(database, scene.core.tick(scene.now))
    for device in ("cam-0", "cam-1"):
        written(database, scene.report(device))
    assert listed(database) == [0, 2, 2]
    database.close()


def test_a_round_of_before_that_was_written_down_has_no_number(tmp_path: Path) -> None:
    """A database of an older server says nothing of it, where counting what is left would say 0."""
    scene = Scene()
    scene.collecting()
    old = msgspec.to_builtins(scene.round.record(SPEC)) | {"state": "abandoned"}
    del old["reports"]
    database = Database(tmp_path / "server.db")
    database.apply([e.SaveRound(msgspec.convert(old, RoundRecord))])
    assert listed(database) == [None]
    database.close()
