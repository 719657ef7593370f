"""The folder a distillation starts from and ends in."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from broker_server.distil_job import (
    DistilJob,
    DistilResult,
    DistilSettings,
    Failure,
    read_job,
    read_result,
    write_job,
)
from edge_protocol.errors import DistillationError, LocalProtocolError
from edge_protocol.ids import DeviceId
from edge_protocol.messages import KnowledgeReport
from tests.broker_server.strategies.ballots import class_votes

JOB = DistilJob(
    task="vehicle", round=3, release=2, settings=DistilSettings(), anchors="a.npz", proxies="p.npz", validation="v.npz"
)
REPORT = KnowledgeReport("vehicle", "0" * 16, 3, 2, "ab" * 32, 9, class_votes([0, 1]))
RESULT = DistilResult(
    headline="accuracy",
    higher_is_better=True,
    metrics={"nano": {"candidate": {"accuracy": 0.5}}},
    teacher={"reports": 1.0},
    devices={"cam-2": "too old"},
    parameters={"nano": 3},
)


def test_job_round_trips_with_its_reports(tmp_path: Path) -> None:
    """What was written is read back, reports in the order of the devices' names."""
    write_job(tmp_path / "job", JOB, {DeviceId("cam-2"): REPORT, DeviceId("cam-1"): REPORT})
    job = read_job(tmp_path / "job")
    assert job == msgspec.structs.replace(JOB, reports=("cam-1.report", "cam-2.report"))
    data = (tmp_path / "job" / "reports" / "cam-1.report").read_bytes()
    assert msgspec.msgpack.decode(data, type=KnowledgeReport) == REPORT


def test_a_device_cannot_write_outside_the_job(tmp_path: Path) -> None:
    """A device whose name is a path is refused."""
    with pytest.raises(LocalProtocolError):
        write_job(tmp_path / "job", JOB, {DeviceId("../../evil"): REPORT})
    assert not (tmp_path / "evil.report").exists()


def test_a_disk_that_refuses_is_our_error(tmp_path: Path) -> None:
    """A file where the folder should be is named in the error."""
    (tmp_path / "job").write_text("in the way")
    with pytest.raises(DistillationError, match="cannot write"):
        write_job(tmp_path / "job", JOB, {})


def test_result_is_read_back(tmp_path: Path) -> None:
    """A finished job gives its result."""
    (tmp_path / "result.json").write_bytes(msgspec.json.encode(RESULT))
    assert read_result(tmp_path) == RESULT


def test_a_failed_job_says_why(tmp_path: Path) -> None:
    """The worker's own message reaches the coordinator, even when an old result lies there."""
    (tmp_path / "result.json").write_bytes(msgspec.json.encode(RESULT))
    (tmp_path / "error.json").write_bytes(msgspec.json.encode(Failure("DataError", "anchors.npz: truncated")))
    with pytest.raises(DistillationError, match=r"anchors\.npz: truncated \(DataError\)"):
        read_result(tmp_path)


def test_a_killed_worker_left_nothing(tmp_path: Path) -> None:
    """Neither result nor error: the message says what is missing."""
    with pytest.raises(DistillationError, match=r"left no result\.json"):
        read_result(tmp_path)


def test_broken_files_are_our_error(tmp_path: Path) -> None:
    """A truncated job is an error that names the file."""
    (tmp_path / "job.json").write_text('{"task": "vehicle"')
    with pytest.raises(DistillationError, match="not a DistilJob"):
        read_job(tmp_path)


def test_settings_refuse_unknown_keys_and_nonsense() -> None:
    """A typing error in the configuration does not pass silently."""
    for text in ('{"epoch": 3}', '{"temperature": 0}', '{"device_cap": 1.5}'):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(text, type=DistilSettings)
