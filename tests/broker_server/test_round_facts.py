"""What is told of single rounds."""

from __future__ import annotations

from broker_server.distil_job import DistilSettings
from broker_server.round_facts import round_details
from broker_server.round_manifest import RoundManifest
from edge_protocol.ids import DeviceId
from tests.broker_server.scenes import SPEC, TASK, Scene, result


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
