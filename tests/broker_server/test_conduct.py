"""What devices did is counted by reason, written down, read again, and forgotten after a week."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker_server.conduct import CLONE, Conduct, Offence
from broker_server.conduct_file import NAME, ConductFile, read_conduct
from broker_server.quotas import MESSAGES, QuotaConfig
from edge_protocol.errors import StoreError
from edge_protocol.ids import DeviceId

CAM = DeviceId("cam-1")
QUOTA = QuotaConfig(messages_s=1, burst=1)
WEEK_S = 7 * 86_400


def _bad(limit: int = 10) -> Conduct:
    conduct = Conduct(QUOTA, limit, {})
    for _ in range(3):
        conduct.refusal(CAM, 1, 100.0)
    for boot in (b"a", b"b", b"a"):
        conduct.born(CAM, boot, 200.0)
    return conduct


def test_offences_are_counted_and_outlive_the_process(tmp_path: Path) -> None:
    """Two messages too many and one turn of a clone come back from the file, and are counted on."""
    ConductFile(tmp_path, _bad()).save(200.0)
    found = read_conduct(tmp_path)
    assert found == {CAM: {MESSAGES: Offence(2, 100.0), CLONE: Offence(1, 200.0)}}
    again = Conduct(QUOTA, 10, found)
    for boot in (b"a", b"b", b"a"):
        again.born(CAM, boot, 300.0)
    assert again.offences[CAM][CLONE] == Offence(2, 300.0)


def test_a_clock_that_was_set_back_does_not_keep_it_from_the_file(tmp_path: Path) -> None:
    """Written by a clock that was a day ahead, and again by one that is right."""
    conduct = _bad()
    file = ConductFile(tmp_path, conduct)
    file.save(86_400.0)
    conduct.refusal(CAM, 1, 100.0)
    file.save(200.0)
    assert read_conduct(tmp_path)[CAM][MESSAGES].count == 3


def test_what_is_a_week_old_is_forgotten() -> None:
    """Each reason goes when it was last seen a week ago, and the device with the last of them."""
    conduct = _bad()
    conduct.forget(WEEK_S + 150.0)
    assert set(conduct.offences[CAM]) == {CLONE}
    conduct.forget(WEEK_S + 250.0)
    assert conduct.offences == {}


def test_memory_is_bounded() -> None:
    """More devices than the limit are not noted."""
    conduct = _bad(limit=1)
    for _ in range(3):
        conduct.refusal(DeviceId("cam-2"), 1, 0.0)
    assert set(conduct.offences) == {CAM}


def test_a_file_that_cannot_be_read_is_no_reason_to_stop(tmp_path: Path) -> None:
    """Missing and damaged files are read as nothing; a folder that is gone is an error of the save."""
    assert read_conduct(tmp_path) == {}
    (tmp_path / NAME).write_bytes(b"{junk")
    assert read_conduct(tmp_path) == {}
    with pytest.raises(StoreError):
        ConductFile(tmp_path / "gone", _bad()).save(0.0)


def test_an_unchanged_file_is_not_written_again(tmp_path: Path) -> None:
    """Nothing new, or too soon: the disk is left alone."""
    conduct = _bad()
    kept = ConductFile(tmp_path, conduct)
    kept.save(200.0)
    (tmp_path / NAME).unlink()
    kept.save(300.0)
    assert not (tmp_path / NAME).exists()
    conduct.refusal(CAM, 1, 100.0)
    kept.save(301.0)
    assert not (tmp_path / NAME).exists()
    kept.save(306.0)
    assert (tmp_path / NAME).exists()
