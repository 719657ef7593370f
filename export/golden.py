"""Golden answers: a few inputs and what they must give, checked on the device before it serves. Needs no torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from devices.runners.base import Runner
from edge_protocol.errors import DeploymentError, IncompatibleError

SAMPLES = 4
TOLERANCE = 1e-3
"""Largest difference allowed, relative to one plus the largest golden value: above rounding, below a wrong weight."""

F4 = npt.NDArray[np.float32]


def make_golden(runner: Runner, inputs: F4) -> bytes:
    """Record what a runner answers to `inputs` (N, *input shape) float32, which are rounded to fp16 to travel light."""
    short = inputs.astype(np.float16)
    answer = runner.infer(short.astype(np.float32))
    return save({"inputs": short, "features": answer.features, "logits": answer.logits})


def check_golden(runner: Runner, golden: bytes, tolerance: float = TOLERANCE) -> None:
    """Ask a runner for the golden answers, all at once and one by one.

    Args:
        runner: to be asked.
        golden: what `make_golden` recorded.
        tolerance: largest difference, relative to one plus the largest golden value.

    Raises:
        DeploymentError: it answers otherwise, or the file is not golden answers.
    """
    try:
        recorded = load(golden)
        inputs = recorded["inputs"].astype(np.float32)
        expected = {name: recorded[name] for name in ("features", "logits")}
    except (SafetensorError, KeyError) as error:
        raise DeploymentError(
            f"golden answers of {len(golden)} bytes cannot be read: {error}; fetch them again"
        ) from error
    for batch in (inputs, inputs[:1]):
        try:
            answer = runner.infer(batch)
        except IncompatibleError as error:
            raise DeploymentError(f"golden inputs do not fit the student: {error}") from error
        for name, reference in expected.items():
            _compare(name, getattr(answer, name), reference[: len(batch)], runner.provider, tolerance)


def _compare(name: str, given: F4, reference: F4, provider: str, tolerance: float) -> None:
    if given.shape != reference.shape:
        raise DeploymentError(f"{provider} gives {name} of shape {given.shape}, golden ones are {reference.shape}")
    error = float(np.abs(given - reference).max(initial=0))
    allowed = tolerance * (1 + float(np.abs(reference).max(initial=0)))
    if not error <= allowed:
        raise DeploymentError(
            f"{provider} is off the golden {name} by {error:.3g} (allowed {allowed:.3g}): not what was exported, "
            "or this runtime computes it wrongly; the running release stays"
        )
