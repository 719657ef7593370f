"""`--runner trt`: the whole way from the command line, with a `tensorrt` and a CUDA runtime that stand for real."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from edge_protocol.errors import ExitCode
from roadcast import output
from roadcast.commands.bench import app as bench
from roadcast.commands.export import app as export
from tests.fakes.trt_machine import environment_with


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported student of the speed task."""
    folder = tmp_path_factory.mktemp("export") / "speed"
    arguments = ["build", "speed", "--tier", "nano", "-o", str(folder)]
    assert output.run(lambda: export(arguments, prog_name="export")) == ExitCode.OK
    (folder / "state.safetensors").unlink()  # parity with PyTorch is tested elsewhere
    return folder


@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler to make a CUDA runtime with")
def test_a_check_and_a_measurement_reach_tensorrt(built: Path, tmp_path: Path) -> None:
    """A plan is built apart and kept, its golden answers match, and the result names what ran."""
    environment = environment_with(tmp_path)

    def roadcast(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "roadcast", *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=140)

    done = roadcast("export", "check", built, "--runner", "trt", "--json")
    assert done.returncode == ExitCode.OK, done.stderr
    assert json.loads(done.stdout)["provider"] == "TensorRT 10.3.0 on compute capability 8.7"
    assert len(list((tmp_path / "cache/roadcast/plans").glob("*.plan"))) == 1
    short = ("--seconds", 0, "--warm-up", 0, "--queries", 30, "--json", tmp_path / "r.json")
    done = roadcast("bench", "run", built, "--runner", "trt", *short)
    assert done.returncode == ExitCode.OK, done.stderr
    assert "ran on TensorRT 10.3.0" in done.stdout


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_a_machine_without_tensorrt_is_told_what_to_do(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not ready, with the remedy; nothing else is tried in its place."""
    for app, command in ((export, "check"), (bench, "run")):
        arguments = [command, str(built), "--runner", "trt"]
        assert output.run(lambda: app(arguments, prog_name="x")) == ExitCode.NOT_READY  # noqa: B023
        assert "JetPack" in capsys.readouterr().err


def test_a_bare_file_is_not_run_in_tensorrt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing would judge its plan."""
    (tmp_path / "m.onnx").write_bytes(b"")
    arguments = ["run", str(tmp_path / "m.onnx"), "--runner", "trt"]
    assert output.run(lambda: bench(arguments, prog_name="bench")) == ExitCode.CONFIG
    assert "golden answers" in capsys.readouterr().err.replace("\n", " ")
