"""A run measures the model it was given, end to end where asked, and says what ran it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import onnxruntime
import pytest
import torch
from safetensors.numpy import load, save

from devices.boards import Machine
from devices.latency.load import Plan
from devices.runners.ort_providers import NAMES
from edge_protocol.errors import ConfigError, DataError, DeploymentError, ExitCode, IncompatibleError, NotReadyError
from export.folder import CARD, GOLDEN, TEMPLATE, WEIGHTS, read_part
from export.graph import inlined
from roadcast.bench import show
from roadcast.bench.job import Job, RunnerName
from roadcast.bench.running import run_job
from tests.fakes.boards import fake_board
from tests.fakes.latency import measured

SHORT = Plan(queries=30, seconds=0, warm_up_queries=2, warm_up_seconds=0)
"""Too few queries for a warm-up to be found in them, so that all count."""


def test_a_student_is_measured_and_named(vehicle: Path) -> None:
    """One stage, the CPU proven, both files' hashes, memory as the kernel counts it."""
    found = measured(run_job(vehicle, Job(plan=SHORT)))
    assert list(found.stages) == ["infer"]
    assert found.latency.count == 30
    assert found.subject.model == "vehicle nano depthwise"
    assert found.subject.providers == {"CPUExecutionProvider": 1.0}
    assert found.subject.sha256 == sha256(read_part(vehicle, TEMPLATE)).hexdigest()
    assert found.subject.weights_sha256 == sha256(read_part(vehicle, WEIGHTS)).hexdigest()
    assert found.peak_mb is not None
    assert found.cpu.mean_ms > 0


@pytest.mark.parametrize(
    ("task", "stages"),
    [("vehicle", ["decode", "preprocess", "infer", "head", "publish"]), ("speed", ["infer", "head", "publish"])],
)
def test_the_whole_way_is_measured_step_by_step(task: str, stages: list[str], request: pytest.FixtureRequest) -> None:
    """From a camera's JPEG, or a sensor's window, to an encoded message; the steps add up to the latency."""
    found = measured(run_job(request.getfixturevalue(task), Job(plan=SHORT, end_to_end=True)))
    assert list(found.stages) == stages
    assert sum(stage.mean_ms for stage in found.stages.values()) == pytest.approx(found.latency.mean_ms, rel=0.2)


def test_a_stage_that_was_not_measured_says_why(vehicle: Path, speed: Path) -> None:
    """Inference alone, a simulated camera, and a sensor's window: no zero, but a reason, also for people."""
    alone = measured(run_job(vehicle, Job(plan=SHORT)))
    assert list(alone.unmeasured) == ["capture", "decode", "preprocess", "head", "publish"]
    assert "not measured: capture, decode, preprocess, head, publish (inference alone" in str(show.result(alone))
    camera = measured(run_job(vehicle, Job(plan=SHORT, end_to_end=True)))
    assert list(camera.unmeasured) == ["capture"]
    assert "--source" in camera.unmeasured["capture"]
    assert "a device sends one every 60 s" in camera.notes["publish"]
    window = measured(run_job(speed, Job(plan=SHORT, end_to_end=True)))
    assert list(window.unmeasured) == ["capture", "decode", "preprocess"]


def test_a_model_is_loaded_before_its_way_is_laid(vehicle: Path) -> None:
    """What a source or a broker takes to open is no part of loading."""
    begun = time.perf_counter()
    found = measured(run_job(vehicle, Job(plan=SHORT, end_to_end=True)))
    assert 0 < found.load_ms < (time.perf_counter() - begun) * 1e3


def test_a_board_is_watched_while_it_runs(vehicle: Path, tmp_path: Path) -> None:
    """A recorded Orin Nano: heat and the GPU's clock over time, power mode and throttling; its cores' clock is not."""
    board = fake_board("jetson-orin-nano-super-r36.4.7", tmp_path / "board")
    found = measured(run_job(vehicle, Job(plan=SHORT), machine=board))
    assert len(found.moments) >= 2
    assert {moment.celsius for moment in found.moments} == {53.968}
    assert {moment.clock_mhz for moment in found.moments} == {None}
    assert found.power_mode == "MAXN_SUPER"
    assert "hottest zone 53.97 °C" in str(show.result(found))
    assert not measured(run_job(vehicle, Job(plan=SHORT), machine=Machine(tmp_path))).moments


def test_a_file_of_ones_own_is_measured_in_batches(vehicle: Path, tmp_path: Path) -> None:
    """The same student as one ONNX file, eight samples a query."""
    path = tmp_path / "student.onnx"
    path.write_bytes(inlined(read_part(vehicle, TEMPLATE), read_part(vehicle, WEIGHTS)))
    found = measured(run_job(path, Job(plan=Plan(scenario="multi-stream", queries=30, seconds=0, warm_up_seconds=0))))
    assert found.samples == 8
    assert found.samples_per_s > 0
    assert found.subject.weights_sha256 == ""


def test_a_template_alone_is_no_model(vehicle: Path) -> None:
    """The message says to name the folder."""
    with pytest.raises(IncompatibleError, match="name the folder"):
        run_job(vehicle / TEMPLATE, Job(plan=SHORT))


def test_what_cannot_be_measured_is_named(vehicle: Path, tmp_path: Path) -> None:
    """No file, an empty folder, the whole way of a file or of eight samples, a damaged payload."""
    with pytest.raises(DataError, match="name an ONNX file"):
        run_job(tmp_path / "none.onnx", Job(plan=SHORT))
    with pytest.raises(NotReadyError):
        run_job(tmp_path, Job(plan=SHORT))
    with pytest.raises(ConfigError, match="--end-to-end"):
        run_job(vehicle / TEMPLATE, Job(plan=SHORT, end_to_end=True))
    with pytest.raises(ConfigError, match="one sample"):
        run_job(vehicle, Job(plan=Plan(scenario="multi-stream", queries=30, seconds=0), end_to_end=True))
    for path in vehicle.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / WEIGHTS).write_bytes(read_part(vehicle, WEIGHTS)[:-4])
    with pytest.raises(IncompatibleError, match="fetch it again"):
        run_job(tmp_path, Job(plan=SHORT))


@pytest.mark.parametrize("task", ["vehicle", "speed"])
def test_pytorch_is_measured_as_the_reference(task: str, request: pytest.FixtureRequest) -> None:
    """What ran is named, the whole way goes through it, and a batch is asked at once."""
    folder, eager = request.getfixturevalue(task), f"PyTorch {torch.__version__}, eager"
    found = measured(run_job(folder, Job(plan=SHORT, runner="torch", end_to_end=True)))
    assert (found.subject.runner, found.subject.providers) == ("torch", {eager: 1.0})
    assert found.subject.software.startswith("torch ")
    assert "infer" in found.stages
    eight = Plan(scenario="multi-stream", queries=30, seconds=0, warm_up_queries=2, warm_up_seconds=0)
    assert measured(run_job(folder, Job(plan=eight, runner="torch"))).samples == 8


def test_pytorch_needs_a_folder_of_the_plain_student(vehicle: Path, tmp_path: Path) -> None:
    """A bare ONNX file names no student; a variant is none of PyTorch's; other golden answers are not measured."""
    with pytest.raises(ConfigError, match="whose card names the student that it builds"):
        run_job(vehicle / TEMPLATE, Job(plan=SHORT, runner="torch"))
    for path in vehicle.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    card = read_part(vehicle, CARD)
    (tmp_path / CARD).write_bytes(card.replace(b'"precision": "fp32"', b'"precision": "int8-cpu"'))
    with pytest.raises(ConfigError, match="no int8-cpu variant; name the folder above"):
        run_job(tmp_path, Job(plan=SHORT, runner="torch-compile"))
    (tmp_path / CARD).write_bytes(card.replace(b'"depthwise"', b'"residual"'))
    with pytest.raises(IncompatibleError, match="another student's"):
        run_job(tmp_path, Job(plan=SHORT, runner="torch"))
    (tmp_path / CARD).write_bytes(card)
    golden = load(read_part(vehicle, GOLDEN))
    (tmp_path / GOLDEN).write_bytes(save({**golden, "logits": golden["logits"] + 1}))
    with pytest.raises(DeploymentError, match=r"PyTorch .* is off the golden logits"):
        run_job(tmp_path, Job(plan=SHORT, runner="torch"))


def test_a_machine_without_pytorch_is_told_what_to_install(vehicle: Path, tmp_path: Path) -> None:
    """Not ready, one line, and only for that runner: ONNX Runtime is measured without it."""
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('none', name='torch')")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[3]}"}
    command = [sys.executable, "-m", "roadcast", "bench", "run", vehicle, "--queries", "5", "--seconds", "0"]

    def asked(runner: str) -> subprocess.CompletedProcess[str]:
        whole = [*map(str, command), "--warm-up", "0", "--runner", runner]
        return subprocess.run(whole, env=environment, capture_output=True, text=True, check=False, timeout=110)

    done = asked("torch")
    assert done.returncode == ExitCode.NOT_READY, done.stderr
    said = done.stderr.replace("\n", " ")
    assert "--runner torch needs torch, which is not installed here; run: pip install 'roadcast[train]'" in said
    assert asked("ort").returncode == ExitCode.OK


@pytest.mark.parametrize("runner", ["ort-cuda", "ort-tensorrt"])
def test_a_gpu_that_is_not_there_is_not_the_cpu_instead(runner: RunnerName, vehicle: Path) -> None:
    """Without its provider the run is refused; a bare ONNX file has no golden answers to judge it by."""
    if not set(onnxruntime.get_available_providers()).isdisjoint(NAMES.values()):
        pytest.skip("an ONNX Runtime for GPUs is installed here")
    with pytest.raises(NotReadyError, match=r"has no .*ExecutionProvider"):
        run_job(vehicle, Job(plan=SHORT, runner=runner))
    with pytest.raises(ConfigError, match="golden answers"):
        run_job(vehicle / TEMPLATE, Job(plan=SHORT, runner=runner))
