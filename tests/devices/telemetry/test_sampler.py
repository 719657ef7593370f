"""Samples: units, rates, memory that is bounded, and nothing that was not read."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.boards import Machine, recorded
from devices.telemetry.metrics import METRICS, exposition
from devices.telemetry.sampler import SLOW_S, Sample, Sampler
from devices.telemetry.textfile import write_textfile
from edge_protocol.errors import StoreError
from edge_protocol.messages import Telemetry
from tests.fakes.boards import fake_board, names


def test_a_sample_holds_base_units(tmp_path: Path) -> None:
    """Celsius, watts, hertz, bytes and shares, under names of the table."""
    values = Sampler(fake_board("jetson-orin-nano-super-r36.4.7", tmp_path), state_dir=tmp_path).sample(0.0).values
    assert values["temperature_celsius.tj"] == 53.968
    assert values["temperature_headroom_celsius"] == pytest.approx(45.032)
    assert values["board_power_watts"] == pytest.approx(12.47936)
    assert values["over_current.VDD_IN"] == 1
    assert values["gpu_clock_hertz"] == 621e6
    assert values["throttle_events_total"] == 17
    assert values["clock_synchronized"] == 1
    assert 0 < values["state_free_bytes"] <= values["state_total_bytes"]
    assert "temperature_celsius.cv0" not in values
    assert "cpu_load_ratio" not in values, "a share of time needs two samples"


@pytest.mark.parametrize("name", names())
def test_every_board_s_sample_is_a_legal_message(name: str, tmp_path: Path) -> None:
    """Its readings fit a `Telemetry` message, and each belongs to a metric."""
    sample = Sampler(fake_board(name, tmp_path)).sample(0.0)
    msgspec.convert(msgspec.to_builtins(Telemetry(sample.values)), Telemetry)
    assert {reading.partition(".")[0] for reading in sample.values} <= set(METRICS)
    assert all(math.isfinite(value) for value in sample.values.values())


def test_rates_are_differences_over_time(tmp_path: Path) -> None:
    """Processor time and bytes since the last sample; a counter that began again gives no rate."""
    machine = fake_board("raspberry-pi-4", tmp_path)
    sampler = Sampler(machine)
    sampler.sample(0.0)
    _write(machine, "proc/stat", "cpu  1075 5 300 90025 40 0 9 0 0 0\n")
    _write(machine, "sys/block/mmcblk0/stat", f"10 0 80 4 20 0 {8_388_608 + 100} 9 0 12 13")
    second = sampler.sample(2.0).values
    assert second["cpu_load_ratio"] == 0.75
    assert second["disk_written_bytes_per_second.mmcblk0"] == 100 * 512 / 2
    _write(machine, "proc/stat", "cpu  1 1 1 1 1\n")
    _write(machine, "sys/block/mmcblk0/stat", "10 0 80 4 20 0 5 9 0 12 13")
    third = sampler.sample(3.0).values
    assert "cpu_load_ratio" not in third
    assert "disk_written_bytes_per_second.mmcblk0" not in third


def test_what_costs_a_process_is_asked_once_a_minute(tmp_path: Path) -> None:
    """Between two askings the answer is kept; the files are read each time."""
    asked: list[str] = []
    board = fake_board("jetson-orin-nx-r36.4.4", tmp_path)

    def count(argv: tuple[str, ...]) -> str | None:
        asked.append(argv[0])
        return board.command(argv)

    sampler = Sampler(Machine(board.root, count))
    for second in range(int(SLOW_S)):
        assert sampler.sample(float(second)).values["disk_wear_ratio.nvme0n1"] == 1.0
    assert sorted(asked) == ["nvme", "timedatectl"]
    sampler.sample(SLOW_S)
    assert sorted(asked) == ["nvme", "nvme", "timedatectl", "timedatectl"]


def test_memory_is_bounded(tmp_path: Path) -> None:
    """The oldest sample gives way."""
    sampler = Sampler(recorded(tmp_path), keep=3)
    for second in range(10):
        sampler.sample(float(second))
    assert [sample.at_s for sample in sampler.history] == [7.0, 8.0, 9.0]


def test_a_sensor_that_goes_away_goes_missing(tmp_path: Path) -> None:
    """A zone that stops answering is absent from the next sample, not 0 and not the old value."""
    machine = fake_board("raspberry-pi-5", tmp_path)
    sampler = Sampler(machine, state_dir=tmp_path / "none")
    assert "temperature_celsius.cpu" in sampler.sample(0.0).values
    (machine.root / "sys/class/thermal/thermal_zone0/temp").unlink()
    later = sampler.sample(1.0).values
    assert "temperature_celsius.cpu" not in later
    assert "state_free_bytes" not in later


def test_a_sensor_that_comes_late_is_found(tmp_path: Path) -> None:
    """A driver that loads after the sampler began is seen within a minute."""
    machine = fake_board("raspberry-pi-5", tmp_path)
    sampler = Sampler(machine)
    sampler.sample(0.0)
    late = machine.root / "sys/class/thermal/thermal_zone1"
    late.mkdir()
    (late / "type").write_text("nvme-thermal")
    (late / "temp").write_text("41000")
    assert "temperature_celsius.nvme" not in sampler.sample(1.0).values
    assert sampler.sample(SLOW_S).values["temperature_celsius.nvme"] == 41.0


def test_exposition_is_prometheus_text() -> None:
    """HELP, TYPE, one line a reading; labels are escaped; what is no metric of ours or not finite is left out."""
    text = exposition(
        {"temperature_celsius.cpu": 40.5, 'power_watts.a"b\\c\nd': 0.0, "other": 1.0, "gpu_load_ratio": math.nan}
    )
    assert text == (
        "# HELP roadcast_temperature_celsius Temperature of a thermal zone.\n"
        "# TYPE roadcast_temperature_celsius gauge\n"
        'roadcast_temperature_celsius{zone="cpu"} 40.5\n'
        "# HELP roadcast_power_watts Power of a supply rail.\n"
        "# TYPE roadcast_power_watts gauge\n"
        'roadcast_power_watts{rail="a\\"b\\\\c\\nd"} 0.0\n'
    )


@given(st.dictionaries(st.sampled_from([*METRICS, *(f"{name}.x" for name in METRICS)]), st.floats()))
def test_a_line_for_each_finite_reading_with_the_right_label(values: dict[str, float]) -> None:
    """A reading has a line when it is finite and says what it is of exactly where the metric asks for that."""
    right = [
        n for n, v in values.items() if math.isfinite(v) and ("." in n) == bool(METRICS[n.partition(".")[0]].label)
    ]
    lines = [line for line in exposition(values).splitlines() if not line.startswith("#")]
    assert sorted(float(line.split(" ")[1]) for line in lines) == sorted(values[name] for name in right)


def test_the_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """Nothing is left beside it; a folder that is not there is an error that says so."""
    for value in (1.0, 2.0):
        write_textfile(tmp_path / "x.prom", Sample(0.0, {"throttled": value}))
    assert [path.name for path in tmp_path.iterdir()] == ["x.prom"]
    assert (tmp_path / "x.prom").read_text().endswith("roadcast_throttled 2.0\n")
    with pytest.raises(StoreError, match="may be written"):
        write_textfile(tmp_path / "none" / "x.prom", Sample(0.0, {}))


def _write(machine: Machine, path: str, text: str) -> None:
    (machine.root / path).write_text(text)
