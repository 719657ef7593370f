"""The parity gate: what a device will run against what PyTorch says, at several batch sizes; owns no file."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from devices.runners.ort_runner import OrtRunner
from edge_models.students import Student
from edge_protocol.errors import ParityError
from export.payload import served

BATCHES = (1, 2, 7, 64)
TOLERANCE = 1e-4
"""Largest difference allowed, relative to one plus the output's largest value."""

F4 = npt.NDArray[np.float32]


class ParityReport(msgspec.Struct, frozen=True):
    """Largest differences found.

    Attributes:
        batches: sizes that were tried.
        features, logits: largest absolute difference, over all of them.
        provider: what ran the exported file.
    """

    batches: tuple[int, ...]
    features: float
    logits: float
    provider: str


def check_parity(student: Student, template: bytes, weights: bytes, x: F4) -> ParityReport:
    """Compare the deployed files with the student, both with weights rounded as the payload says.

    Args:
        student: not changed.
        template: graph that will be deployed.
        weights: payload that will be deployed.
        x: (N, *input shape) float32, real or random inputs; noise is added so that no two rows are equal.

    Raises:
        ParityError: names output, batch and difference.
    """
    plain = served(student, weights)
    noise = np.random.default_rng(0).normal(0, 0.1, (max(BATCHES), *x.shape[1:]))
    inputs = (np.resize(x, noise.shape) + noise).astype(np.float32)
    worst = {"features": 0.0, "logits": 0.0}
    with OrtRunner(template, weights) as runner:
        for batch in BATCHES:
            answer = runner.infer(inputs[:batch])
            with torch.inference_mode():
                expected = dict(zip(worst, plain(torch.from_numpy(inputs[:batch])), strict=True))
            for name, reference in expected.items():
                worst[name] = max(worst[name], _difference(name, batch, getattr(answer, name), reference.numpy()))
        return ParityReport(BATCHES, worst["features"], worst["logits"], runner.provider)


def _difference(name: str, batch: int, given: F4, reference: F4) -> float:
    largest = float(np.abs(reference).max())
    error = float(np.abs(given - reference).max()) if given.shape == reference.shape else float("nan")
    if not error <= TOLERANCE * (1 + largest):
        raise ParityError(
            f"{name} at batch {batch} differ by {error:.3g} absolute, {error / (largest or 1):.3g} relative "
            f"(allowed {TOLERANCE:g}; shapes {given.shape} and {reference.shape}): the graph computes something else; "
            "look for an operator the exporter gets wrong, and pin torch and onnxscript as in constraints.txt"
        )
    return error
