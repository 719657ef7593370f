"""Golden answers: recorded once, checked on a device without torch, and not fooled."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from safetensors.numpy import load, save

from devices.runners.base import Answer
from devices.runners.ort_runner import OrtRunner
from edge_models.students import build_student
from edge_protocol.errors import DeploymentError
from edge_protocol.task import TaskSpec
from export import BuiltArtifact
from export.golden import SAMPLES, check_golden, make_golden
from export.payload import weights_payload


def test_a_release_passes_its_own_golden_answers(artifact: BuiltArtifact) -> None:
    """What was exported passes, also when golden answers are recorded anew."""
    with OrtRunner(artifact.template, artifact.weights) as runner:
        check_golden(runner, artifact.golden)
        recorded = load(artifact.golden)
        assert recorded["inputs"].shape == (SAMPLES, 3, 32, 32)
        assert make_golden(runner, recorded["inputs"].astype(np.float32)) == artifact.golden


def test_other_weights_fail(artifact: BuiltArtifact, spec: TaskSpec) -> None:
    """Weights of another training of the same student are caught, and the message says that nothing was lost."""
    other = weights_payload(build_student(spec, "small", seed=7), artifact.template)
    with (
        OrtRunner(artifact.template, other) as runner,
        pytest.raises(DeploymentError, match=r"CPUExecutionProvider is off .* running release stays"),
    ):
        check_golden(runner, artifact.golden)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda golden: golden[:-10], "cannot be read"),
        (lambda golden: b"", "cannot be read"),
        (lambda golden: save({"inputs": load(golden)["inputs"]}), "cannot be read"),
        (lambda golden: save({**load(golden), "inputs": np.zeros((4, 12, 4), np.float16)}), "do not fit"),
        (lambda golden: save({**load(golden), "logits": np.zeros((4, 9), np.float32)}), r"shape \(4, 6\)"),
        (lambda golden: save({**load(golden), "logits": np.full((4, 6), np.nan, np.float32)}), "off the golden logits"),
    ],
)
def test_damaged_golden_answers_are_an_error(
    artifact: BuiltArtifact, change: Callable[[bytes], bytes], message: str
) -> None:
    """Truncated, empty, incomplete, of another shape, not a number: never a pass."""
    with (
        OrtRunner(artifact.template, artifact.weights) as runner,
        pytest.raises(DeploymentError, match=message),
    ):
        check_golden(runner, change(artifact.golden))


class BatchesWrong:
    """A runtime that is right for many samples and wrong for one, as a badly built engine may be."""

    provider = "BadEngine"

    def __init__(self, runner: OrtRunner) -> None:
        self._runner = runner

    def infer(self, x: np.ndarray) -> Answer:
        """Answer, shifted when alone."""
        answer = self._runner.infer(x)
        return Answer(answer.features + (len(x) == 1), answer.logits)


def test_a_runtime_that_is_wrong_for_single_samples_is_caught(artifact: BuiltArtifact) -> None:
    """Golden answers are asked for together and alone."""
    with (
        OrtRunner(artifact.template, artifact.weights) as runner,
        pytest.raises(DeploymentError, match="BadEngine is off the golden features"),
    ):
        check_golden(BatchesWrong(runner), artifact.golden)  # type: ignore[arg-type]


def test_checking_needs_neither_torch_nor_onnx() -> None:
    """A device checks golden answers without the server's packages."""
    code = (
        "import sys; import export.golden, export.folder, devices.runners.ort_runner;"
        "print([name for name in ('torch', 'onnx', 'onnxscript') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
