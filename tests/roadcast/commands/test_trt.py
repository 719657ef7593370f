"""`--runner trt`: the whole way from the command line, with a `tensorrt` and a CUDA runtime that stand for real."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from devices.runners.ort_runner import OrtRunner
from edge_protocol.errors import ExitCode
from export.golden import make_golden
from roadcast import exits
from roadcast.commands.bench import app as bench
from roadcast.commands.export import app as export
from tests.fakes.student import PAYLOAD, TEMPLATE, X
from tests.fakes.trt_machine import environment_with


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A folder with a student made by hand, which needs no exporter."""
    folder = tmp_path / "student"
    folder.mkdir()
    with OrtRunner(TEMPLATE, PAYLOAD) as runner:
        parts = {
            "template.onnx": TEMPLATE,
            "weights.safetensors": PAYLOAD,
            "golden.safetensors": make_golden(runner, X),
        }
    for name, data in parts.items():
        (folder / name).write_bytes(data)
    return folder


def roadcast(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    command = [sys.executable, "-m", "roadcast", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=110)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler to make a CUDA runtime with")
def test_a_check_reaches_tensorrt(built: Path, tmp_path: Path) -> None:
    """A plan is built apart and kept, its golden answers match, and what is named has run."""
    done = roadcast(environment_with(tmp_path), "export", "check", built, "--runner", "trt", "--json")
    assert done.returncode == ExitCode.OK, done.stderr
    assert json.loads(done.stdout)["provider"] == "TensorRT 10.3.0 on compute capability 8.7"
    assert len(list((tmp_path / "cache/roadcast/plans").glob("*.plan"))) == 1


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler to make a CUDA runtime with")
def test_a_measurement_reaches_tensorrt(tmp_path: Path) -> None:
    """An exported student is measured, and the result names what ran."""
    folder = tmp_path / "speed"
    assert exits.run(lambda: export(["build", "speed", "-o", str(folder)], prog_name="export")) == ExitCode.OK
    short = ("--seconds", 0, "--warm-up", 0, "--queries", 30)
    done = roadcast(environment_with(tmp_path), "bench", "run", folder, "--runner", "trt", *short)
    assert done.returncode == ExitCode.OK, done.stderr
    assert "ran on TensorRT 10.3.0" in done.stdout


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_a_machine_without_tensorrt_is_told_what_to_do(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not ready, with the remedy; nothing else is tried in its place."""
    assert exits.run(lambda: export(["check", str(built), "--runner", "trt"], prog_name="x")) == ExitCode.NOT_READY
    assert "JetPack" in capsys.readouterr().err


def test_a_bare_file_is_not_run_in_tensorrt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing would judge its plan."""
    (tmp_path / "m.onnx").write_bytes(b"")
    arguments = ["run", str(tmp_path / "m.onnx"), "--runner", "trt"]
    assert exits.run(lambda: bench(arguments, prog_name="bench")) == ExitCode.CONFIG
    assert "golden answers" in capsys.readouterr().err.replace("\n", " ")
