"""What all benchmarks share: exit codes, the JSON file, and arithmetic that can be checked by hand."""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edge_protocol.errors import ExitCode, NotReadyError

PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "harness.py"


@pytest.fixture(scope="module")
def harness() -> ModuleType:
    """The module, loaded by path: benchmarks are scripts, not a package."""
    found = importlib.util.spec_from_file_location("harness", PATH)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["harness"] = module  # dataclasses look themselves up
    found.loader.exec_module(module)
    return module


def test_a_missed_target_exits_3_only_when_checked(harness: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """With --check the exit code says whether the target was met; the headline is the last line either way."""

    def measure(options: object) -> object:
        """Measure nothing."""
        return harness.Outcome("seven is too many", {}, [harness.Target("count", 7, 5)], [("a", "b"), (1, 2.0)])

    assert harness.run(measure, []) == ExitCode.OK
    assert harness.run(measure, ["--check", "--quick"]) == ExitCode.CHECK_FAILED
    assert capsys.readouterr().out.splitlines()[-1] == "seven is too many"


def test_what_is_missing_is_said_in_a_line(harness: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """A benchmark that cannot run here exits with the error's own code, without a traceback."""

    def measure(options: object) -> object:
        """Lack something."""
        raise NotReadyError("no peers here; run: make peers")

    assert harness.run(measure, []) == ExitCode.NOT_READY
    assert capsys.readouterr().err == "no peers here; run: make peers\n"


def test_figures_are_written_as_json(harness: ModuleType, tmp_path: Path) -> None:
    """Spreads become objects, targets say whether they were met."""

    def measure(options: object) -> object:
        """Measure nothing."""
        return harness.Outcome("fine", {"time": harness.spread([1.0, 2.0, 3.0])}, [harness.Target("count", 4, 5)])

    assert harness.run(measure, ["--check", "--json", str(tmp_path / "out.json")]) == ExitCode.OK
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["figures"]["time"] == {"median": 2.0, "low": 1.5, "high": 2.5, "repeats": 3}
    assert found["targets"][0]["met"] is True


def test_what_is_not_a_number_is_null_in_json(harness: ModuleType, tmp_path: Path) -> None:
    """NaN and infinity, also NumPy's, of figures and of targets: any reader of JSON can read the file."""

    def measure(options: object) -> object:
        """Measure nothing."""
        own = {"own": [float("nan"), np.float32("inf"), 1.5], "all": float("-inf")}
        return harness.Outcome("odd", own, [harness.Target("sure", float("nan"), 1.0)])

    assert harness.run(measure, ["--json", str(tmp_path / "out.json")]) == ExitCode.OK

    def none(name: str) -> object:
        raise AssertionError(name)

    found = json.loads((tmp_path / "out.json").read_text(), parse_constant=none)
    assert found["figures"] == {"own": [None, None, 1.5], "all": None}
    assert found["targets"][0]["value"] is None


def test_a_benchmark_gets_its_own_options_by_keyword(harness: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """Silent ones as the benchmark has them; numbers that count nothing and words that it does not know are refused."""
    got: dict[str, object] = {}

    def measure(options: object, **own: object) -> object:
        """Measure nothing."""
        got.update(own)
        return harness.Outcome("fine", {})

    own = {
        "seeds": harness.Own(3, "how many"),
        "ours_only": harness.Own(default=False, help="40% alone".replace("%", "%%")),
        "cache": harness.Own(Path("kept"), "where"),
        "plot": harness.Own(None, "here", Path),
    }
    assert harness.run(measure, [], **own) == ExitCode.OK
    assert got == {"seeds": 3, "ours_only": False, "cache": Path("kept"), "plot": None}
    assert harness.run(measure, ["--quick", "--seeds", "2", "--ours-only", "--plot", "a.svg"], **own) == ExitCode.OK
    assert got == {"seeds": 2, "ours_only": True, "cache": Path("kept"), "plot": Path("a.svg")}
    for wrong in (["--seeds", "0"], ["--seeds", "-1"], ["--seeds", "x"], ["--rounds", "1"]):
        with pytest.raises(SystemExit) as ended:
            harness.run(measure, wrong, **own)
        assert ended.value.code == ExitCode.USAGE
    assert "'0' is no whole number from 1" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        harness.run(measure, ["--help"], **own)
    assert "how many (3)" in capsys.readouterr().out


def test_cases_take_turns_and_warm_up_is_not_counted(harness: ModuleType) -> None:
    """Each case runs once a turn; only turns after the warm-up are timed."""
    calls: list[str] = []
    ticks = itertools.count()
    cases = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = harness.interleaved(cases, repeats=3, warm_up=1, clock=lambda: next(ticks))
    assert "".join(calls) == "abababab"
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}
    assert harness.ratios([2.0, 4.0], [1.0, 1.0]).median == 3.0


def test_not_a_number_meets_no_target(harness: ModuleType) -> None:
    """A figure that could not be measured never passes."""
    assert not harness.Target("x", float("nan"), 5).met
    assert not harness.Target("x", float("nan"), 5, at_most=False).met
    assert harness.Target("x", 6, 5, at_most=False).met
