"""What a board draws, from the files of recorded boards: by its rail, a sum of rails, RAPL, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.boards import Machine
from devices.latency.power import Draw, Energy, PowerMeter, draw_of, integrated
from devices.latency.sensors import Sensors
from tests.fakes.boards import expected, fake_board, names
from tests.fakes.latency import WorkClock

TEN_SECONDS = 10_000_000_000


def meter(machine: Machine, clock: WorkClock) -> PowerMeter:
    """A meter of a recorded board whose time passes in work only."""
    return PowerMeter(machine, Sensors(machine.root), clock.wall)


@pytest.mark.parametrize("name", names())
def test_every_board_s_energy_is_its_power_over_time(name: str, tmp_path: Path) -> None:
    """Ten seconds at what the board is known to draw; a sum is said to be one; a board without rails says nothing."""
    clock, want = WorkClock(), expected(name)
    found = meter(fake_board(name, tmp_path), clock).over(lambda: clock.sleep(TEN_SECONDS))
    if want.get("watts") is None:
        assert found is None
        return
    assert found is not None
    assert found.source == ("rails" if want["estimated"] else "board")
    assert found.watts == pytest.approx(want["watts"], rel=1e-6)
    assert found.seconds == pytest.approx(10)


def test_a_rail_that_rises_is_integrated(tmp_path: Path) -> None:
    """From 4 W to 8 W over ten seconds: between what either alone would be."""
    rail = tmp_path / "sys/class/hwmon/hwmon3"
    rail.mkdir(parents=True)
    for file, text in {"name": "ina3221", "in1_label": "VDD_IN", "in1_input": 5000, "curr1_input": 800}.items():
        (rail / file).write_text(f"{text}\n")
    clock = WorkClock()

    def work() -> None:
        clock.sleep(TEN_SECONDS)
        (rail / "curr1_input").write_text("1600\n")

    found = meter(Machine(tmp_path), clock).over(work)
    assert found is not None
    assert 40 < found.joules <= 80
    assert found.samples >= 2


def test_without_rails_the_processor_s_counter_counts(tmp_path: Path) -> None:
    """RAPL: 30 J in ten seconds are 3 W; with neither, nothing is claimed, and the work is done all the same."""
    clock, done = WorkClock(), list[int]()
    assert meter(Machine(tmp_path), clock).over(lambda: done.append(1)) is None
    assert done == [1]
    package = tmp_path / "sys/class/powercap/intel-rapl:0"
    package.mkdir(parents=True)
    (package / "energy_uj").write_text("0\n")
    (package / "max_energy_range_uj").write_text("1000000000\n")

    def work() -> None:
        clock.sleep(TEN_SECONDS)
        (package / "energy_uj").write_text("30000000\n")

    assert meter(Machine(tmp_path), clock).over(work) == Energy("rapl", 30.0, 10.0, 2)


def test_work_that_fails_is_not_swallowed(tmp_path: Path) -> None:
    """With a rail and without: the error comes out, and no thread goes on."""

    def fail() -> None:
        raise KeyError("work")

    runs: list[Callable[[], object]] = [
        lambda: meter(fake_board("jetson-orin-nano-super-r36.4.7", tmp_path / "a"), WorkClock()).over(fail),
        lambda: meter(Machine(tmp_path), WorkClock()).over(fail),
    ]
    for run in runs:
        with pytest.raises(KeyError, match="work"):
            run()


def test_a_run_is_set_beside_the_idle_board() -> None:
    """10 W over 2 s for 1000 samples, 4 W idle: 20 mJ each, 12 of them its own; two kinds of source are no figure."""
    idle, busy = Energy("board", 12.0, 3.0, 30), Energy("board", 20.0, 2.0, 20)
    assert draw_of(idle, busy, 1000) == Draw("board", 10.0, 4.0, 20.0, 12.0)
    assert draw_of(Energy("rapl", 12.0, 3.0, 2), busy, 1000) is None
    assert draw_of(idle, busy, 0) is None


@given(
    st.lists(st.tuples(st.integers(0, 10**12), st.floats(0, 2000)), min_size=2, max_size=30, unique_by=lambda r: r[0])
)
def test_energy_lies_between_its_extremes(readings: list[tuple[int, float]]) -> None:
    """Between lowest and highest power times the time, for any readings."""
    ordered = sorted(readings)
    seconds = (ordered[-1][0] - ordered[0][0]) / 1e9
    powers = [watts for _, watts in ordered]
    assert min(powers) * seconds * 0.999 - 1e-9 <= integrated(ordered) <= max(powers) * seconds * 1.001 + 1e-9
