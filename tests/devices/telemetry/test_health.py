"""Health: limits, fixes, and silence about what is not known."""

from __future__ import annotations

from pathlib import Path

import pytest

from devices.findings import Finding, worst
from devices.telemetry.health import DAY_S, judge
from devices.telemetry.sampler import Sample, Sampler
from devices.telemetry.scene import FAULTS
from tests.fakes.boards import fake_board, names


def _levels(values: dict[str, float]) -> dict[str, str]:
    return {finding.check: finding.level for finding in judge([Sample(0.0, values)])}


@pytest.mark.parametrize(
    ("check", "values", "levels"),
    [
        ("heat", "temperature_headroom_celsius", {30.0: "ok", 9.9: "warn", 0.0: "fail"}),
        ("throttled", "throttled", {0.0: "ok", 1.0: "warn"}),
        ("over-current", "over_current.VDD_IN", {0.0: "ok", 1.0: "warn"}),
        ("disk wear", "disk_wear_ratio.mmcblk0", {0.1: "ok", 0.8: "warn", 1.0: "fail"}),
        ("clock", "clock_synchronized", {1.0: "ok", 0.0: "warn"}),
        ("camera", "camera_frame_age_seconds.road", {1.0: "ok", 10.1: "fail"}),
        ("logger", "logger_row_age_seconds.loops", {9.0: "ok", 10.1: "fail"}),
    ],
)
def test_each_reading_has_its_limits(check: str, values: str, levels: dict[float, str]) -> None:
    """Well, worse, worst: the level follows the reading."""
    assert {value: _levels({values: value})[check] for value in levels} == levels


def test_a_slow_source_is_not_taken_for_a_silent_one() -> None:
    """A logger with a row every five minutes may be silent for fifteen; a camera with a frame a minute for three."""
    for what, period in (("logger_row", 300.0), ("camera_frame", 60.0)):
        age, name = f"{what}_age_seconds.x", f"{what}_period_seconds.x"
        told = [_levels({age: missed * period, name: period}) for missed in (2.9, 3.1)]
        assert [set(levels.values()) for levels in told] == [{"ok"}, {"fail"}]


@pytest.mark.parametrize(("check", "what"), [("disk room", "state_{}_bytes"), ("memory", "memory_{}_bytes")])
def test_room_is_a_share(check: str, what: str) -> None:
    """Of the whole; without the whole nothing is said."""
    left = what.format("free" if check == "disk room" else "available")
    assert _levels({what.format("total"): 100.0, left: 50.0}) == {check: "ok"}
    assert _levels({what.format("total"): 100.0, left: 4.0}) == {check: "warn"}
    assert _levels({what.format("total"): 100.0, left: 0.1}) == {check: "fail"}
    assert _levels({left: 50.0}) == {}


def test_writes_are_judged_over_a_minute_at_least() -> None:
    """A burst says nothing; what a minute shows is taken for the day."""
    name = "disk_written_bytes_total.mmcblk0"
    daily = 40e9
    short = [Sample(0.0, {name: 0.0}), Sample(59.0, {name: daily})]
    long = [Sample(0.0, {name: 0.0}), Sample(600.0, {name: daily * 600 / DAY_S})]
    assert judge(short) == ()
    (finding,) = judge(long)
    assert (finding.level, finding.says) == ("warn", "mmcblk0: 40.00 GB a day")
    assert judge([Sample(0.0, {name: 9.0}), Sample(600.0, {name: 1.0})]) == ()


def test_a_view_that_is_wrong_fails_the_camera() -> None:
    """Moved, covered, black and blurred fail with a fix; what cannot be judged is a warning; no number is no view."""
    views = {"a": 0, "b": 1 + FAULTS.index("moved"), "c": 1 + FAULTS.index("dark"), "d": 99, "e": -1}
    values = {f"camera_view_fault.{camera}": float(number) for camera, number in views.items()}
    found = [(finding.says, finding.level, bool(finding.fix)) for finding in judge([Sample(0.0, values)])]
    assert found == [
        ("a: as when it was commissioned", "ok", False),
        ("b: moved", "fail", True),
        ("c: dark", "warn", True),
    ]


def test_what_is_not_known_is_not_called_well() -> None:
    """No readings, no findings."""
    assert judge([]) == judge([Sample(0.0, {})]) == ()


@pytest.mark.parametrize("name", names())
def test_what_is_not_well_has_a_fix(name: str, tmp_path: Path) -> None:
    """Of every recorded board: a warning says what to do, an ok does not."""
    sampler = Sampler(fake_board(name, tmp_path))
    sampler.sample(0.0)
    for finding in judge(sampler.history):
        assert bool(finding.fix) == (finding.level != "ok"), finding


def test_the_worst_level_counts() -> None:
    """Fail beats warn beats ok; nothing is ok."""
    ok, warn, fail = Finding("a", "ok", ""), Finding("b", "warn", ""), Finding("c", "fail", "")
    assert worst([]) == worst([ok]) == "ok"
    assert worst([ok, warn]) == "warn"
    assert worst([warn, fail, ok]) == "fail"
