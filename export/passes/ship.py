"""An INT8 variant as an artifact of the same form as any other: template, payload, golden answers (ADR-0017)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from devices.runners.base import Runner
from devices.runners.onnx_file import OnnxFile
from devices.runners.ort_runner import OrtRunner
from edge_protocol.errors import ParityError
from export.artifact import BuiltArtifact
from export.golden import SAMPLES, make_golden
from export.graph import OUTPUTS, outlined
from export.parity import BATCHES, ParityReport

F4 = npt.NDArray[np.float32]
SAME = 1e-5
"""Largest difference between the file that was judged and the artifact made of it, relative to one plus the largest."""


def to_artifact(full: bytes, made: bytes, x: F4, parameters: int) -> BuiltArtifact:
    """Take a variant's file apart into what a device loads, and check that it still answers as the file does.

    Args:
        full: the FP32 file; the parity of the card is the distance from it.
        made: the variant's file, which passed its gate.
        x: (N, *shape) float32, one or more samples.
        parameters: number of weights.

    Raises:
        ParityError: the artifact answers differently from the file.
    """
    template, weights = outlined(made)
    with OrtRunner(template, weights) as runner, OnnxFile(made) as file, OnnxFile(full) as reference:
        check_same(runner, file, x)
        inputs = np.resize(x, (max(BATCHES), *x.shape[1:]))
        features, logits = (
            float(np.abs(given - exact).max())
            for given, exact in zip(runner.infer(inputs), reference.infer({"input": inputs}), strict=True)
        )
        golden = make_golden(runner, np.resize(x, (SAMPLES, *x.shape[1:])))
        parity = ParityReport(BATCHES, features, logits, runner.provider)
    return BuiltArtifact(template, weights, golden, parameters, parity)


def check_same(runner: Runner, file: OnnxFile, x: F4) -> None:
    """Compare what a device loads with the file that was judged, at several batch sizes.

    Raises:
        ParityError: they answer differently.
    """
    for batch in BATCHES:
        inputs = np.resize(x, (batch, *x.shape[1:]))
        for name, given, judged in zip(OUTPUTS, runner.infer(inputs), file.infer({"input": inputs}), strict=True):
            if not np.abs(given - judged).max() <= SAME * (1 + np.abs(judged).max()):
                raise ParityError(
                    f"{name} at batch {batch} change when the file is taken apart into template and payload: "
                    "this ONNX Runtime treats external weights differently; pin it as in constraints.txt"
                )
