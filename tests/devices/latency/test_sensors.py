"""Sensors are read from a tree of files as Linux has it, and what is missing is said to be missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from devices.boards import Machine
from devices.latency.sensors import Moment, Reading, Sensors, between


def put(root: Path, **files: object) -> None:
    """Write files; ``__`` stands for a slash and ``_C_`` for a colon."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_C_", ":")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """Two packages with one part, two cores of which one was slowed, two thermal zones."""
    put(
        tmp_path,
        sys__class__powercap__intel_rapl_C_0__energy_uj=900,
        sys__class__powercap__intel_rapl_C_0__max_energy_range_uj=1000,
    )
    (tmp_path / "sys/class/powercap/intel_rapl:0").rename(tmp_path / "sys/class/powercap/intel-rapl:0")
    for name in ("intel-rapl:1", "intel-rapl:0:0"):
        folder = tmp_path / "sys/class/powercap" / name
        folder.mkdir()
        (folder / "energy_uj").write_text("10\n")
        (folder / "max_energy_range_uj").write_text("1000000\n")
    for core in (0, 1):
        put(
            tmp_path / f"sys/devices/system/cpu/cpu{core}",
            cpufreq__scaling_cur_freq=1_500_000,
            cpufreq__scaling_min_freq=400_000,
            cpufreq__scaling_max_freq=1_500_000,
            cpufreq__scaling_governor="schedutil",
            thermal_throttle__core_throttle_count=core,
        )
    for number, (kind, temp) in enumerate((("cpu-thermal", 41_000), ("gpu-thermal", 52_500), ("cv0-thermal", "?"))):
        put(tmp_path / f"sys/class/thermal/thermal_zone{number}", type=kind, temp=temp)
    put(tmp_path / "proc/self", status="Name:\tx\nVmHWM:\t   1000 kB\nVmRSS:\t 10 kB")
    return tmp_path


def test_a_board_is_read(board: Path) -> None:
    """Packages without their parts, clocks, throttling, the hottest zone, peak memory."""
    sensors = Sensors(board)
    assert sensors.read() == Reading(
        {"intel-rapl:0": (900, 1000), "intel-rapl:1": (10, 1_000_000)}, (1_500_000, 1_500_000), 1, 52.5
    )
    assert sensors.pinned() is False
    assert sensors.peak_mb() == 1.024


def test_a_run_is_what_lies_between_two_readings(board: Path) -> None:
    """A counter that started again, a clock that fell, a core that was slowed, heat."""
    sensors = Sensors(board)
    before = sensors.read()
    put(board / "sys/class/powercap/intel-rapl:0", energy_uj=100)
    put(board / "sys/class/powercap/intel-rapl:1", energy_uj=2_000_010 % 1_000_000)
    for core in (0, 1):
        put(board / f"sys/devices/system/cpu/cpu{core}/cpufreq", scaling_cur_freq=1_200_000)
    put(board / "sys/devices/system/cpu/cpu0/thermal_throttle", core_throttle_count=7)
    put(board / "sys/class/thermal", thermal_zone0__temp=81_000)
    found = between(before, sensors.read(), pinned=sensors.pinned())
    assert found.energy_j == pytest.approx(200e-6)
    assert found.clock_mhz == (1500.0, 1200.0)
    assert found.clock_moved == pytest.approx(0.2)
    assert found.throttle_events == 7
    assert found.celsius == (52.5, 81.0)


@pytest.mark.parametrize(("file", "text"), [("scaling_governor", "performance"), ("scaling_min_freq", "1500000")])
def test_pinned_means_one_clock(board: Path, file: str, text: str) -> None:
    """By governor or by range, and on every core."""
    put(board / "sys/devices/system/cpu/cpu0/cpufreq", **{file: text})
    assert Sensors(board).pinned() is False
    put(board / "sys/devices/system/cpu/cpu1/cpufreq", **{file: text})
    assert Sensors(board).pinned() is True


def test_a_boards_own_counter_and_alerts_count_where_cores_have_none(tmp_path: Path) -> None:
    """An over-current event between two readings, then an alert that is on; a board whose alerts are off says no."""
    put(tmp_path / "sys/class/hwmon/hwmon1", oc1_event_cnt=3)
    put(tmp_path / "sys/class/thermal/cooling_device0", type="gpu-throttle-alert", cur_state=0)
    sensors = Sensors(tmp_path)
    calm = sensors.read()
    assert between(calm, sensors.read(), pinned=None).throttled is False
    put(tmp_path / "sys/class/hwmon/hwmon1", oc1_event_cnt=5)
    counted = between(calm, sensors.read(), pinned=None)
    assert (counted.throttle_events, counted.throttled, counted.slowed_by) == (2, True, ())
    put(tmp_path / "sys/class/thermal/cooling_device0", cur_state=1)
    slowed = between(sensors.read(), sensors.read(), pinned=None)
    assert (slowed.throttle_events, slowed.throttled, slowed.slowed_by) == (0, True, ("gpu",))


def test_a_moment_has_the_gpus_clock_too(board: Path) -> None:
    """Heat, the cores' mean and a Jetson's GPU; a range of one clock is pinned, as by jetson_clocks."""
    put(board / "sys/class/devfreq/17000000.gpu", cur_freq=918_000_000, min_freq=306_000_000, max_freq=918_000_000)
    for core in (0, 1):
        put(board / f"sys/devices/system/cpu/cpu{core}/cpufreq", scaling_governor="performance")
    sensors = Sensors(board)
    assert sensors.moment(2.5) == Moment(2.5, 52.5, 1500.0, 918.0)
    assert sensors.pinned() is False
    put(board / "sys/class/devfreq/17000000.gpu", min_freq=918_000_000)
    assert Sensors(board).pinned() is True


def test_the_power_mode_is_named(tmp_path: Path) -> None:
    """By its name, by its number where the name cannot be read, and not at all on another board."""
    said = {"nvpmodel": "NV Power Mode: MODE_15W_6CORE\n2\n"}
    assert Sensors(tmp_path, Machine(tmp_path, lambda argv: said.get(argv[0]))).power_mode() == "MODE_15W_6CORE"
    put(tmp_path / "var/lib/nvpmodel", status="pmode:0003")
    assert Sensors(tmp_path, Machine(tmp_path, lambda _: None)).power_mode() == "mode 3"
    assert Sensors(tmp_path / "none", Machine(tmp_path / "none", lambda _: None)).power_mode() is None


def test_without_sensors_nothing_is_claimed(tmp_path: Path) -> None:
    """An empty tree gives None everywhere, not zero."""
    sensors = Sensors(tmp_path)
    found = between(sensors.read(), sensors.read(), pinned=sensors.pinned())
    assert {getattr(found, name) for name in found.__struct_fields__} == {None}
    assert sensors.peak_mb() is None
    assert not sensors.forget_peak()
    assert sensors.moment(0.0).empty
    assert found.throttled is None


def test_the_peak_of_memory_can_be_measured_anew() -> None:
    """On a real kernel: 200 MB that were freed no longer count once the peak is forgotten."""
    sensors = Sensors()
    block = bytearray(200_000_000)
    high = sensors.peak_mb()
    del block
    if not sensors.forget_peak() or high is None:
        pytest.skip("this kernel does not let a process forget its peak")
    low = sensors.peak_mb()
    assert low is not None
    assert low < high - 100
