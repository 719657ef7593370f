"""Traps of single readings that no recorded board shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from devices.boards import Machine, Recording, jetpack_of, plant, recorded
from devices.boards.host import read_cores, read_ticks
from devices.boards.power import Power, Rail, read_rails, total
from devices.boards.profiles import boards, table
from devices.boards.storage import parse_df, read_disks, read_root
from devices.boards.thermal import Zone, headroom, hottest, zone_name


def _machine(folder: Path, files: dict[str, str]) -> Machine:
    plant(Recording(files, {}), folder)
    return recorded(folder)


def test_a_total_is_never_added_to_its_parts() -> None:
    """With a rail for the whole that is the answer, readable or not; without one the sum, if every rail is known."""
    parts = (Rail("VDD_SOC", 1.0), Rail("VDD_CPU_GPU_CV", 2.0))
    assert total((*parts, Rail("VDD_IN", 4.5))) == Power(4.5, estimated=False)
    assert total((*parts, Rail("VDD_IN", None))) == Power(None, estimated=False)
    assert total(parts) == Power(3.0, estimated=True)
    assert total((*parts, Rail("CV", None))) == Power(None, estimated=True)
    assert total(()) is None


def test_rails_that_only_root_may_read_are_unknown(tmp_path: Path) -> None:
    """JetPack 4 on the Nano: the label is there, the value is not."""
    rail = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_0"
    assert read_rails(_machine(tmp_path, {rail: "POM_5V_IN"})) == (Rail("POM_5V_IN", None),)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("CPU-therm", "cpu"), ("cpu-thermal", "cpu"), ("CPU", "cpu"), ("tj-therm", "tj"), ("Tboard_tegra", "tboard"),
        ("soc012-thermal", "soc012"), ("thermal-fan-est", "thermal-fan-est"), ("thermal", "thermal"),
        ("PMIC-Die", None), ("PMIC", None), ("x86_pkg_temp", "x86_pkg_temp"), ("", None),
    ],
)  # fmt: skip
def test_both_generations_of_zone_names_are_one(kind: str, name: str | None) -> None:
    """Kernels and tegrastats name the same sensor in three ways."""
    assert zone_name(kind) == name


def test_headroom_is_that_of_the_zone_nearest_its_limit() -> None:
    """Zones without a limit or a reading do not count."""
    zones = (Zone("cpu", 60.0, 99.0), Zone("gpu", 70.0, 80.0), Zone("soc", None, 10.0), Zone("x", 90.0))
    assert headroom(zones) == 10.0
    assert hottest(zones) == 90.0
    assert headroom(()) is hottest(()) is None


def test_cores_that_are_off_do_not_count(tmp_path: Path) -> None:
    """0,3-5 is four; a text that is no list is unknown."""
    online = "sys/devices/system/cpu/online"
    assert read_cores(_machine(tmp_path / "a", {online: "0,3-5"})) == 4
    assert read_cores(_machine(tmp_path / "b", {online: "0,x"})) is None


def test_ticks_are_busy_and_idle(tmp_path: Path) -> None:
    """Waiting for the disk is idle; guest time is in user time already; a short line is unknown."""
    assert read_ticks(_machine(tmp_path / "a", {"proc/stat": "cpu  10 1 5 100 20 0 2 0 7 0\n"})) == (18, 120)
    assert read_ticks(_machine(tmp_path / "b", {"proc/stat": "cpu  10 1\n"})) is None


def test_a_read_only_root_is_seen(tmp_path: Path) -> None:
    """A worn card is remounted read-only; `errors=remount-ro` alone is not that."""
    line = "/dev/mmcblk0p1 / ext4 {} 0 0"
    ro = read_root(_machine(tmp_path / "a", {"proc/mounts": line.format("ro,relatime,errors=remount-ro")}))
    rw = read_root(_machine(tmp_path / "b", {"proc/mounts": line.format("rw,errors=remount-ro")}))
    assert ro is not None
    assert rw is not None
    assert (ro.read_only, rw.read_only) == (True, False)
    assert (rw.bytes, rw.free) == (None, None)


def test_a_disk_that_tells_little_is_little_known(tmp_path: Path) -> None:
    """No kind, no size, no writes, no wear: None, not 0."""
    (disk,) = read_disks(_machine(tmp_path, {"sys/block/mmcblk0/size": "0", "sys/block/mmcblk0/stat": "1 2"}))
    assert (disk.kind, disk.bytes, disk.written, disk.wear) == (None, None, None, None)


def test_df_that_prints_nonsense_is_unknown() -> None:
    """Too few columns, or words for numbers."""
    assert parse_df("df: /: no") == (None, None)
    assert parse_df("a b c d e f") == (None, None)


def test_the_table_of_boards_is_whole() -> None:
    """Names are unique, every fact has a source, and every L4T release of a board belongs to a JetPack."""
    names = [board.name for board in boards()]
    assert len(set(names)) == len(names) == 11
    facts = {"parts", "names", "compute_capability", "memory_gib", "power_modes", "precisions", "jetpacks"}
    assert set(table().sources) == facts
    assert all(jetpack_of(release) is not None for board in boards() for release in board.l4t)
    assert jetpack_of(40) is jetpack_of(None) is None
