"""Execution providers are judged by what they answer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from devices.doctor.runtime_checks import (
    CPU,
    Trial,
    Trials,
    check_runtimes,
    check_tensorrt,
    run_python,
    try_providers,
)
from devices.doctor.tiny_model import tiny_input, tiny_model

CUDA, TRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
ANSWER = tuple(float(value) for value in range(1, 11))


def test_the_tiny_model_is_valid_onnx() -> None:
    """ONNX's own checker takes it, shapes and all."""
    onnx.checker.check_model(onnx.load_from_string(tiny_model()), full_check=True)


def test_the_tiny_model_answers_as_numpy_does() -> None:
    """Convolution, ReLU, mean and matrix, by hand."""
    model = onnx.load_from_string(tiny_model())
    kernel, matrix = (onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer)
    windows = np.lib.stride_tricks.sliding_window_view(tiny_input()[0], (3, 3), axis=(1, 2))
    features = np.maximum(np.einsum("chwij,fcij->fhw", windows, kernel), 0)
    wanted = features.mean(axis=(1, 2)) @ matrix
    session = onnxruntime.InferenceSession(tiny_model(), providers=[CPU])
    found = np.asarray(session.run(None, {"input": tiny_input()})[0])
    np.testing.assert_allclose(found[0], wanted, rtol=1e-4)


def test_this_machine_s_cpu_is_tried_for_real() -> None:
    """In a process of its own it runs the model; a provider that computes elsewhere is not tried."""
    trials = try_providers()
    assert trials.version == onnxruntime.__version__
    assert trials.by_provider[CPU].ran_on == CPU
    assert "AzureExecutionProvider" not in trials.by_provider
    assert check_runtimes(trials, gpu=False)[0].level == "ok"


def _trials(**others: Trial) -> Trials:
    names = {"cuda": CUDA, "trt": TRT}
    found = {names[name]: trial for name, trial in others.items()}
    return Trials("1.31.1", found | {CPU: Trial(CPU, ANSWER)})


def test_a_provider_that_agrees_is_ok() -> None:
    """Rounding of TF32 is no disagreement."""
    near = tuple(value * 1.001 for value in ANSWER)
    _, cuda = check_runtimes(_trials(cuda=Trial(CUDA, near)), gpu=True)
    assert cuda.level == "ok"


@pytest.mark.parametrize(
    ("trial", "says"),
    [
        (Trial(CPU, ANSWER), "fell back to CPUExecutionProvider"),
        (Trial(None, error="libnvinfer.so.10: cannot open"), "libnvinfer.so.10"),
        (Trial(CUDA, tuple(-value for value in ANSWER)), "answers wrongly"),
        (Trial(CUDA, ANSWER[:3]), "answers wrongly"),
        (Trial(CUDA, (float("nan"),) * 10), "answers wrongly"),
        (Trial(CUDA), "answers wrongly"),
    ],
)
def test_a_provider_that_is_only_listed_is_a_warning(trial: Trial, says: str) -> None:
    """It fell back, lacks a library, answers otherwise, too little or no number; students then run on the CPU."""
    _, cuda, gpu = check_runtimes(_trials(cuda=trial), gpu=True)
    assert (cuda.level, gpu.check) == ("warn", "gpu")
    assert says in cuda.says
    assert cuda.fix


def test_without_the_cpu_nothing_can_be_served() -> None:
    """ONNX Runtime that is missing or broken fails."""
    for trials in (Trials(None), Trials("1", {CPU: Trial(None, error="bad wheel")})):
        (finding,) = check_runtimes(trials, gpu=False)
        assert finding.level == "fail"


def test_a_provider_that_ends_the_process_is_survived() -> None:
    """A crash, an error and nonsense on stdout are errors of that provider only."""

    def python(*arguments: str) -> str:
        if arguments[0] == "-c":
            return json.dumps(["1.31.1", [TRT, CUDA, CPU]])
        if arguments[-1] == TRT:
            return run_python("-c", "import os; os.kill(os.getpid(), 11)")
        return "no JSON" if arguments[-1] == CUDA else run_python(*arguments)

    trials = try_providers(python)
    assert trials.by_provider[TRT].error == "ended by signal 11"
    assert trials.by_provider[CUDA].ran_on is None
    assert trials.by_provider[CPU].ran_on == CPU


def test_python_s_last_line_is_the_reason() -> None:
    """What failed says why; a runtime that is missing is not an error of ours."""
    with pytest.raises(RuntimeError, match="ValueError: why"):
        run_python("-c", "raise ValueError('why')")
    assert try_providers(lambda *_: run_python("-c", "import no_such_module")) == Trials(None)


def test_the_trial_is_a_program(tmp_path: Path) -> None:
    """It prints JSON and nothing else, from any folder."""
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-m", "devices.doctor.provider_trial", CPU]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(root)}, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["ran_on"] == CPU


@pytest.mark.parametrize(
    ("module", "level", "says"),
    [
        ("class Builder:\n    def __init__(self, log): pass", "ok", "10.3.0: made a builder"),
        ("Builder = lambda log: None", "warn", "makes no builder"),
        ("raise ImportError('libnvinfer.so.10: cannot open')", "warn", "libnvinfer.so.10"),
    ],
)
def test_tensorrt_is_asked_for_a_builder(tmp_path: Path, module: str, level: str, says: str) -> None:
    """In a process of its own; a library without a driver, or without its own libraries, is a warning with a fix."""
    log = "class Logger:\n    ERROR = 1\n    def __init__(self, level): pass\n"
    (tmp_path / "tensorrt.py").write_text(f"__version__ = '10.3.0'\n{log}{module}\n")

    def python(*arguments: str) -> str:
        return run_python("-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); exec({arguments[1]!r})")

    found = check_tensorrt(python)
    assert [finding.level for finding in found] == [level]
    assert says in found[0].says
    assert bool(found[0].fix) == (level != "ok")
    gpu = check_runtimes(_trials(), gpu=True, others=found)[-1]
    assert (gpu.check == "gpu") == (level != "ok"), "a GPU that TensorRT uses is not called unused"


def test_without_tensorrt_nothing_is_said_of_it() -> None:
    """Most boards of a fleet's test have none."""

    def python(*arguments: str) -> str:
        return run_python("-c", arguments[1].replace("tensorrt", "no_such_tensorrt"))

    assert check_tensorrt(python) == ()
