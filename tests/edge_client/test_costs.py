"""What a training job is said to cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from devices.boards import Machine
from edge_client.costs import Cost, Meter, board_watts
from tests.fakes.clock import FakeClock


def sensor(root: Path, label: str, millivolts: int, milliamps: int) -> None:
    """One channel of a power monitor on the I²C bus as hwmon shows it."""
    folder = root / "sys/class/hwmon/hwmon3"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text("ina3221\n")
    number = len(list(folder.glob("*_label"))) + 1
    for name, text in (("label", label), ("input", str(millivolts))):
        (folder / f"in{number}_{name}").write_text(text + "\n")
    (folder / f"curr{number}_input").write_text(f"{milliamps}\n")


def test_the_median_step_is_between_steps_and_what_came_before_the_first_is_none(tmp_path: Path) -> None:
    """Loading takes 9 s, then steps 1, 1 and 5 s apart; peak memory is the kernel's figure for this program."""
    clock = FakeClock()
    meter = Meter(clock)
    for seconds in (9, 1, 1, 5):
        clock.advance(seconds)
        meter.tick()
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/status").write_text("Name:\tx\nVmHWM:\t  524288 kB\n")
    told = meter.cost(None, 7.5, tmp_path)
    assert told == Cost(peak_mb=512, steps=4, step_ms=1000, cpu_s=7.5, energy_j=None)


def test_what_was_not_measured_is_absent(tmp_path: Path) -> None:
    """No watts, no energy; no step, no median. Where /proc is missing, the kernel is asked another way."""
    told = Meter().cost(None, 2.0, tmp_path).values()
    assert set(told) == {"train_peak_mb", "train_steps", "train_cpu_s"}
    assert told["train_peak_mb"] > 1


def test_energy_is_processor_seconds_times_watts(tmp_path: Path) -> None:
    """Four seconds at 7.5 W."""
    assert Meter().cost(7.5, 4.0, tmp_path).values()["train_energy_j"] == pytest.approx(30)


def test_the_board_s_watts_come_from_its_main_rail(tmp_path: Path) -> None:
    """5 V at 1.5 A into the board, whatever its GPU rail says; without such a rail there is no figure."""
    assert board_watts(Machine(tmp_path)) is None
    sensor(tmp_path, "VDD_GPU", 5000, 9000)
    assert board_watts(Machine(tmp_path)) is None, "a part is not the whole"
    sensor(tmp_path, "VDD_IN", 5000, 1500)
    assert board_watts(Machine(tmp_path)) == pytest.approx(7.5)


def test_this_process_has_used_memory() -> None:
    """More than an array that it fills."""
    kept = np.ones(8 << 20, np.uint8)
    assert Meter().cost(None, 0.0).peak_mb > len(kept) / (1 << 20)
