"""MLPerf LoadGen, run for real, issues queries in place of our own loop."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from devices.latency.load import Plan, Scenario, SystemClock
from devices.latency.traces import read_loadgen
from edge_protocol.errors import ConfigError, ExitCode, StoreError
from roadcast.bench.job import Job
from roadcast.bench.loadgen import TRACE, WAY, drive, load_loadgen
from roadcast.bench.running import run_job
from tests.fakes.latency import measured

ROOT = Path(__file__).parents[3]
SCENARIOS: list[tuple[Scenario, int, float]] = [
    ("single-stream", 1, 0.0),
    ("multi-stream", 8, 0.0),
    ("offline", 64, 0.0),
    ("server", 1, 500.0),
]
TRIED = 3
"""Queries that tell LoadGen beforehand how long one takes."""


def nap(value: int) -> int:
    """A query of a millisecond."""
    time.sleep(0.001)
    return value


@pytest.mark.parametrize(("scenario", "samples", "rate"), SCENARIOS)
def test_every_scenario_is_issued_by_loadgen(scenario: Scenario, samples: int, rate: float) -> None:
    """As many queries as asked for at least, each through every step in turn, and within what LoadGen says of it."""
    asked: list[int] = []

    def begin(query: int) -> int:
        asked.append(query)
        return nap(query)

    plan = Plan(scenario=scenario, queries=20, seconds=0, rate_hz=rate)
    found = drive([("begin", begin), ("end", nap)], plan, SystemClock())
    count = len(found.starts)
    assert plan.batch == samples
    assert count >= 20
    assert asked == [*range(TRIED), *range(count)]
    assert set(found.stages) == {WAY, "begin", "end"}
    assert all(len(times) == count for times in (found.ends, found.cpu, *found.stages.values()))
    assert [sum(times) for times in zip(*found.stages.values(), strict=True)] == pytest.approx(found.latencies, abs=1e5)
    assert min(found.stages["begin"]) >= 1_000_000
    assert min(found.stages[WAY]) > 0


def test_a_run_lasts_as_long_as_planned() -> None:
    """LoadGen makes its queries beforehand, and enough of them."""
    found = drive([("nap", nap)], Plan(queries=1, seconds=0.3), SystemClock())
    assert found.ends[-1] >= 290_000_000


@pytest.mark.parametrize(("scenario", "samples", "rate"), SCENARIOS)
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_step_that_fails_ends_the_run_and_not_the_process(
    scenario: Scenario, samples: int, rate: float, error: type[BaseException]
) -> None:
    """The error comes out, no query is asked after it, and LoadGen goes on to work: it never hears of it."""
    asked: list[int] = []

    def fail(query: int) -> None:
        asked.append(query)
        if len(asked) == TRIED + 5:
            raise error("broken")

    plan = Plan(scenario=scenario, queries=20, seconds=0, rate_hz=rate)
    with pytest.raises(error, match="broken"):
        drive([("fail", fail)], plan, SystemClock())
    assert len(asked) == TRIED + 5
    assert len(drive([("nap", nap)], plan, SystemClock()).starts) >= 20


def test_loadgen_s_own_files_are_kept_where_asked(tmp_path: Path) -> None:
    """Its trace says what the result says; a folder that cannot be made is named."""
    found = drive([("nap", nap)], Plan(queries=20, seconds=0), SystemClock(), tmp_path / "logs")
    assert {path.name for path in (tmp_path / "logs").iterdir()} >= {TRACE, "mlperf_log_summary.txt"}
    assert read_loadgen((tmp_path / "logs" / TRACE).read_text()).latencies == found.latencies
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be made"):
        drive([("nap", nap)], Plan(queries=20, seconds=0), SystemClock(), tmp_path / "file/logs")


def test_a_disk_that_is_full_is_an_error_and_not_a_shorter_result(tmp_path: Path) -> None:
    """A trace that breaks off is never taken for the run."""
    code = """
import resource, sys
from pathlib import Path
from devices.latency.load import Plan, SystemClock
from edge_protocol.errors import DataError
from roadcast.bench.loadgen import drive
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
try:
    drive([("nothing", lambda query: query)], Plan(queries=200, seconds=0), SystemClock(), Path(sys.argv[1]))
except DataError:
    sys.exit(42)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 42, done.stderr


@pytest.mark.parametrize("scenario", ["single-stream", "server"])
def test_queries_that_loadgen_does_not_have_are_refused(scenario: Scenario) -> None:
    """Two samples in a query of single stream or server are ours alone."""
    with pytest.raises(ConfigError, match="one sample in a query, not 2"):
        load_loadgen(Plan(scenario=scenario, samples=2, rate_hz=5.0 if scenario == "server" else 0.0))


def test_a_student_is_measured_under_loadgen(vehicle: Path) -> None:
    """The same result as ever, with LoadGen's way as a stage that says so, the whole way included; no soak."""
    plan = Plan(queries=30, seconds=0, warm_up_queries=2, warm_up_seconds=0)
    found = measured(run_job(vehicle, Job(plan=plan, driver="loadgen", end_to_end=True)))
    assert list(found.stages) == [WAY, "decode", "preprocess", "infer", "head", "publish"]
    assert found.notes[WAY].startswith("queries issued by MLPerf LoadGen ")
    assert found.latency.count >= 30
    with pytest.raises(ConfigError, match="--soak"):
        run_job(vehicle, Job(plan=plan, driver="loadgen", soak_s=1.0))


def test_a_machine_without_loadgen_is_told_what_to_install(vehicle: Path, tmp_path: Path) -> None:
    """Not ready, one line, before anything is loaded; our own loop does not miss it."""
    (tmp_path / "mlperf_loadgen.py").write_text("raise ModuleNotFoundError('none', name='mlperf_loadgen')")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    short = ("--queries", "5", "--seconds", "0", "--warm-up", "0")

    def asked(driver: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "roadcast", "bench", "run", str(vehicle), *short, "--driver", driver]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=110)

    done = asked("loadgen")
    assert done.returncode == ExitCode.NOT_READY, done.stderr
    assert "MLPerf LoadGen is not installed here; run: pip install 'roadcast[bench]'" in done.stderr.replace("\n", " ")
    assert asked("roadcast").returncode == ExitCode.OK
