"""A soak on a recorded board whose clock falls and whose memory is watched, under a clock that only work moves."""

from __future__ import annotations

from pathlib import Path

import pytest

from devices.boards import Machine
from devices.latency.load import Plan
from devices.latency.sensors import Sensors
from devices.latency.soak import Soak, Window
from roadcast.bench import show
from roadcast.bench.charts import plot_soak
from roadcast.bench.job import Job
from roadcast.bench.running import run_job
from roadcast.bench.soaking import soak
from roadcast.bench.subject import Measurable
from roadcast.bench.way import Way
from tests.fakes.boards import fake_board
from tests.fakes.latency import SUBJECT, WorkClock

PLAN = Plan(warm_up_queries=1, warm_up_seconds=0)


@pytest.fixture(name="board")
def orin(tmp_path: Path) -> Machine:
    """A recorded Orin Nano with a throttle alert that can be switched."""
    machine = fake_board("jetson-orin-nano-super-r36.4.7", tmp_path / "board")
    alert = machine.root / "sys/class/thermal/cooling_device9"
    alert.mkdir(parents=True, exist_ok=True)
    (alert / "type").write_text("gpu-throttle-alert\n")
    (alert / "cur_state").write_text("0\n")
    return machine


def test_a_board_that_throttles_is_found_out(board: Machine) -> None:
    """A query takes 2 ms, then 3 ms with the alert on; power by the board's rail, idle time apart; windows are told."""
    clock, told = WorkClock(), list[Window]()
    alert = board.root / "sys/class/thermal/cooling_device9/cur_state"

    def step(query: object) -> object:
        slow = len(told) >= 8
        alert.write_text(f"{int(slow)}\n")
        return clock.work(3_000_000 if slow else 2_000_000)(query)

    model = Measurable(SUBJECT, Way.inference(step), 1.0, lambda: None)
    job = Job(plan=PLAN, soak_s=4.0, power=True)
    found = soak(model, job, clock, Sensors(board.root, board), board, told.append)
    assert list(found.windows) == told
    assert len(told) == 16
    assert sum(window.queries for window in told) == pytest.approx(4000 / 2.4, rel=0.03)
    assert {window.celsius for window in told} == {53.968}
    assert any(text.startswith("slower: p50 went from 2 to 3 ms") for text in found.findings)
    assert any("throttled" in text and "gpu" in text for text in found.findings)
    assert found.draw is not None
    assert found.draw.source == "board"
    assert found.draw.watts == pytest.approx(12.47936)
    assert found.draw.mj_per_sample_above_idle == pytest.approx(0, abs=1e-6)
    shown = show.soak(found)
    assert isinstance(shown, str)
    assert "finding: slower" in shown
    assert "power mode MAXN_SUPER; clocks pinned: not measured" in shown
    assert "12.5 W by the board's rail, 12.5 W idle" in shown
    assert plot_soak(found).count("<svg") == 4, "latency, heat and the GPU's clock; memory of this recording is unknown"


def test_a_real_model_is_soaked(vehicle: Path) -> None:
    """On this machine for a second: memory is watched, and every window answered something."""
    found = run_job(vehicle, Job(plan=PLAN, soak_s=1.0))
    assert isinstance(found, Soak)
    assert all(window.queries > 0 and window.memory_mb for window in found.windows)
    assert found.windows[-1].at_s >= 1.0
    assert found.draw is None
