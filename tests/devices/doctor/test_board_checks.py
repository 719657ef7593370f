"""Checks of what a probe found."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from devices.boards import BoardFacts, probe, recorded
from devices.boards.host import Clock
from devices.boards.jetson import L4t
from devices.doctor.board_checks import check_board, check_clock, check_python
from devices.findings import Finding
from tests.fakes.boards import fake_board, names

FLOOR_S = 1_767_225_600.0
NOW_S = FLOOR_S + 86_400.0


def _found(facts: BoardFacts, *, now_s: float = NOW_S, tls: bool = True) -> dict[str, Finding]:
    return {finding.check: finding for finding in check_board(facts, FLOOR_S, now_s, tls=tls)}


def _board(name: str, folder: Path) -> BoardFacts:
    return probe(fake_board(name, folder))


@pytest.mark.parametrize("name", names())
def test_every_recorded_board_is_known_and_every_warning_has_a_fix(name: str, tmp_path: Path) -> None:
    """A board of the table is no surprise; whatever is not ok says what to do, and what is ok does not."""
    found = _found(_board(name, tmp_path))
    assert found["board"].level == "ok"
    assert all(bool(finding.fix) == (finding.level != "ok") for finding in found.values())
    if name.startswith("jetson"):
        assert found["l4t"].level == "ok"


def test_a_jetson_is_described(tmp_path: Path) -> None:
    """Release, JetPack, the mode by name beside its choices, heat, alarms, the SD card."""
    found = _found(_board("jetson-orin-nano-super-r36.4.7", tmp_path))
    assert found["l4t"].says == "R36.4.7, JetPack 6"
    assert found["power mode"].says == "MAXN_SUPER, number 2 of 15W, 25W, MAXN_SUPER, 7W"
    assert found["over-current"] == Finding(
        "over-current", "warn", "alarm on VDD_IN", "a stronger supply, or a lower power mode: sudo nvpmodel -m"
    )
    assert found["heat"].level == "warn"
    assert "slowed down: cpu, 17 throttle events" in found["heat"].says
    assert found["storage"].level == "warn"
    assert "SD cards wear out" in found["storage"].says


def test_an_unknown_board_is_asked_for(tmp_path: Path) -> None:
    """It warns and does not fail: the CPU may well do."""
    found = _found(probe(recorded(tmp_path)))
    assert found["board"].level == "warn"
    assert "devices record" in found["board"].fix
    assert set(found) == {"board", "clock"}


def test_a_release_that_is_not_known_yet_is_shown_as_it_is(tmp_path: Path) -> None:
    """Nothing is guessed from it; a Jetson without any release is odd."""
    facts = _board("jetson-thor-r38.2.0", tmp_path)
    assert _found(msgspec.structs.replace(facts, l4t=L4t(41, "1.0")))["l4t"].says.startswith("R41.1.0, newer")
    assert _found(msgspec.structs.replace(facts, l4t=None))["l4t"].level == "warn"


def test_worn_and_read_only_disks_are_found(tmp_path: Path) -> None:
    """A chip beyond its life fails; a root that cannot be written is suspicious."""
    facts = _board("jetson-agx-xavier-r35.3.1", tmp_path)
    worn = _found(facts)["storage"]
    assert (worn.level, worn.fix) == ("fail", "replace mmcblk0 soon")
    assert facts.root is not None
    fixed = msgspec.structs.replace(facts, root=msgspec.structs.replace(facts.root, read_only=True))
    assert _found(fixed)["storage"].level == "warn"


@pytest.mark.parametrize(
    ("synchronised", "now_s", "tls", "level"),
    [
        (True, NOW_S, True, "ok"),
        (False, NOW_S, True, "warn"),
        (None, NOW_S, True, "warn"),
        (True, FLOOR_S - 1, True, "fail"),
        (False, FLOOR_S - 1, False, "warn"),
    ],
)
def test_a_clock_before_its_floor_closes_tls(
    synchronised: bool | None, now_s: float, tls: bool, level: str, tmp_path: Path
) -> None:
    """A time that cannot be right fails where certificates are checked, whatever the kernel says."""
    facts = msgspec.structs.replace(probe(recorded(tmp_path)), clock=Clock(synchronised, None))
    finding = check_clock(facts, FLOOR_S, now_s, tls=tls)
    assert finding.level == level
    assert finding.safe == finding.fix.startswith("sudo timedatectl")


@pytest.mark.parametrize(
    ("version", "level"), [("3.10.12", "ok"), ("3.12.3", "ok"), ("3.8.10", "fail"), ("3.6.9", "fail"), (None, "fail")]
)
def test_python_must_be_new_enough(version: str | None, level: str) -> None:
    """3.10 is enough; a board without Python is not."""
    assert check_python(version, "2.35").level == level
