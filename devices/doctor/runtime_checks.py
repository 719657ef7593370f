"""Which runtimes really answer here: each provider of ONNX Runtime runs a model and is compared with the CPU.

That a provider is listed says nothing: wheels list CUDA and hold no kernel for the GPU of this board. Owns no model.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from devices.findings import Finding

CPU: Final = "CPUExecutionProvider"
REMOTE: Final = frozenset({"AzureExecutionProvider"})
"""Providers that do not compute on this machine."""
TOLERANCE: Final = 0.02
"""Largest difference from the CPU, relative to its largest answer: TF32 and fp16 stay below, wrong kernels do not."""
_TIMEOUT_S: Final = 120.0
_TENSORRT: Final = """
import json, tensorrt as t
print(json.dumps([t.__version__, bool(t.Builder(t.Logger(t.Logger.ERROR)))]))
"""
_LIST: Final = "import json, onnxruntime as o; print(json.dumps([o.__version__, o.get_available_providers()]))"


class Trial(msgspec.Struct, frozen=True):
    """One provider's attempt.

    Attributes:
        ran_on: the provider that answered; None when none did.
        output: what it answered.
        error: why it did not.
    """

    ran_on: str | None
    output: tuple[float, ...] = ()
    error: str = ""


class Trials(msgspec.Struct, frozen=True):
    """What ONNX Runtime can do here: its version, None when it cannot be imported, and a trial of each provider."""

    version: str | None
    by_provider: dict[str, Trial] = {}


def run_python(*arguments: str) -> str:
    """Run this Python with arguments; return what it printed.

    Raises:
        RuntimeError: it failed, was ended by a signal, or took longer than two minutes.
    """
    command = [sys.executable, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"no answer in {_TIMEOUT_S:g} s") from error
    if done.returncode < 0:
        raise RuntimeError(f"ended by signal {-done.returncode}")
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise RuntimeError(lines[-1][:200])
    return done.stdout


def try_providers(python: Callable[..., str] = run_python) -> Trials:
    """Run the tiny model on each provider that is listed, in processes of their own.

    Args:
        python: see `run_python`.
    """
    try:
        version, listed = json.loads(python("-c", _LIST))
    except (RuntimeError, ValueError):
        return Trials(None)
    names = [str(name) for name in listed if name not in REMOTE]
    return Trials(str(version), {name: _trial(name, python) for name in names})


def check_tensorrt(python: Callable[..., str] = run_python) -> tuple[Finding, ...]:
    """TensorRT itself, in a process of its own; nothing where it is not installed.

    A builder that was made shows that library, driver and GPU go together. Whether a student is answered rightly is
    checked by the agent, after each plan that it builds.

    Args:
        python: see `run_python`.
    """
    try:
        version, made = json.loads(python("-c", _TENSORRT))
    except (RuntimeError, ValueError, TypeError) as error:
        absent = "ModuleNotFoundError" in str(error)
        why, fix = f"does not load: {error}", "install the TensorRT of this board's JetPack: apt-get install tensorrt"
        return () if absent else (Finding("tensorrt", "warn", why, fix),)
    if not made:
        fix = "nothing is lost: students answer in ONNX Runtime; look at the driver: dmesg | grep -i nv"
        return (Finding("tensorrt", "warn", f"{version}: makes no builder, so it finds no GPU or driver", fix),)
    return (Finding("tensorrt", "ok", f"{version}: made a builder; each student's plan is checked when it is built"),)


def check_runtimes(trials: Trials, *, gpu: bool, others: Sequence[Finding] = ()) -> tuple[Finding, ...]:
    """Judge the trials.

    Args:
        trials: of each provider.
        gpu: the board has a GPU that CUDA runs on.
        others: what else may use the GPU (`check_tensorrt`).
    """
    reference = trials.by_provider.get(CPU, Trial(None, error="ONNX Runtime cannot be imported"))
    if reference.ran_on != CPU:
        why = f"does not answer on the CPU: {reference.error or reference.ran_on}"
        return (Finding("onnxruntime", "fail", why, "pip install --force-reinstall onnxruntime"), *others)
    compared = [_compared(name, trial, reference) for name, trial in trials.by_provider.items() if name != CPU]
    found = [Finding("onnxruntime", "ok", f"{trials.version}: ran a model on the CPU"), *compared, *others]
    if gpu and all(finding.level != "ok" for finding in (*compared, *others)):
        found.append(Finding("gpu", "ok", "students answer on the CPU; nothing that runs uses this board's GPU"))
    return tuple(found)


def _compared(name: str, trial: Trial, reference: Trial) -> Finding:
    label = name.removesuffix("ExecutionProvider")
    fix = f"nothing is lost: students answer on the CPU; for {label} install the build for this board's JetPack"
    if trial.ran_on != name:
        why = trial.error or f"fell back to {trial.ran_on}"
        return Finding("provider", "warn", f"{label} is listed but does not run: {why}", fix)
    largest = max(map(abs, reference.output), default=0.0)
    same = len(trial.output) == len(reference.output) > 0
    off = max(abs(a - b) for a, b in zip(trial.output, reference.output, strict=True)) if same else float("inf")
    if not off <= TOLERANCE * largest:
        return Finding("provider", "warn", f"{label} runs and answers wrongly: off by {off:.3g} of {largest:.3g}", fix)
    return Finding("provider", "ok", f"{label}: ran a model, {off / largest:.1e} from the CPU's answer")


def _trial(name: str, python: Callable[..., str]) -> Trial:
    try:
        said = json.loads(python("-m", "devices.doctor.provider_trial", name))
        return Trial(str(said["ran_on"]), tuple(float(value) for value in said["output"]))
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        return Trial(None, error=str(error))
