"""PyTorch as a runner: the answers of ONNX Runtime from the same payload, and the same manners."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from devices.runners.ort_runner import OrtRunner
from edge_models.tasks import load_task
from edge_protocol.errors import IncompatibleError, NotReadyError
from edge_protocol.task import Tier
from export.golden import check_golden
from export.parity import BATCHES, TOLERANCE
from export.torch_runner import TorchRunner, open_torch
from tests.fakes.small_centre import artifact_files, int8_files

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # of the compiler's own modules
STUDENTS: list[tuple[str, Tier]] = [("vehicle", "nano"), ("vehicle", "base"), ("speed", "nano"), ("speed", "base")]


def inputs(task: str, count: int) -> np.ndarray:
    """Samples of a task's shape."""
    shape = load_task(task).input.shape
    return np.random.default_rng(3).normal(size=(count, *shape)).astype(np.float32)


def opened(task: str = "speed", tier: Tier = "nano", *, compiled: bool = False) -> TorchRunner:
    """A student of the exporter's in PyTorch."""
    return open_torch(load_task(task), tier, artifact_files(task, tier).weights, compiled=compiled)


@pytest.mark.parametrize(("task", "tier"), STUDENTS)
def test_answers_are_those_of_onnx_runtime(task: str, tier: Tier) -> None:
    """Within the gate's tolerance, at every batch of the gate; the golden answers too, and what ran is named."""
    files, x = artifact_files(task, tier), inputs(task, max(BATCHES))
    with OrtRunner(files.template, files.weights) as plain, opened(task, tier) as runner:
        for batch in BATCHES:
            ours, theirs = runner.infer(x[:batch]), plain.infer(x[:batch])
            for given, reference in zip(ours, theirs, strict=True):
                assert given.dtype == np.float32
                assert np.abs(given - reference).max() <= TOLERANCE * (1 + np.abs(reference).max())
        check_golden(runner, files.golden)
        assert runner.provider == f"PyTorch {torch.__version__}, eager"


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_a_compiled_student_answers_alike_at_every_batch() -> None:
    """What torch.compile makes of it is asked through the same calls, and named."""
    x = inputs("speed", 7)
    with opened() as eager, opened(compiled=True) as compiled:
        for batch in (1, 7):
            for given, reference in zip(compiled.infer(x[:batch]), eager.infer(x[:batch]), strict=True):
                assert np.abs(given - reference).max() <= TOLERANCE * (1 + np.abs(reference).max())
        assert compiled.provider.endswith(", compiled")


def test_what_it_answered_stays_and_what_it_was_given_is_not_touched() -> None:
    """Read-only, strided and reused inputs are as good as any; no answer changes with the next question."""
    x = inputs("speed", 4)
    with opened() as runner:
        first = runner.infer(x[::2])
        kept = first.logits.copy()
        frozen = x[:2].copy()
        frozen.flags.writeable = False
        runner.infer(frozen)
        x[:] = 0
        runner.infer(x)
        assert np.array_equal(first.logits, kept)


@pytest.mark.parametrize("change", [lambda x: x[:0], lambda x: x[:, :3], lambda x: x[0], lambda x: x.astype("f8")])
def test_inputs_that_do_not_fit_are_refused(change: object) -> None:
    """As every runner refuses them: no sample, another shape, another type."""
    assert callable(change)
    with opened() as runner, pytest.raises(IncompatibleError, match="student takes float32"):
        runner.infer(change(inputs("speed", 2)))


def test_threads_are_given_back() -> None:
    """PyTorch's threads belong to the process: they are as before once the runner is closed, twice as well."""
    before = torch.get_num_threads()
    files = artifact_files("speed")
    runner = open_torch(load_task("speed"), "nano", files.weights, threads=before + 1)
    assert torch.get_num_threads() == before + 1
    runner.close()
    torch.set_num_threads(before)
    runner.close()
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("task", "weights", "message"),
    [
        ("speed", artifact_files("vehicle").weights, "another student's"),
        ("vehicle", int8_files().weights, "or a variant's"),
        ("speed", artifact_files("speed").weights[:-4], "cannot be read"),
        ("speed", b"", "cannot be read"),
    ],
)
def test_a_payload_that_is_not_this_student_s_is_refused(task: str, weights: bytes, message: str) -> None:
    """Another task's, a variant's, a damaged one: never a student with part of its weights."""
    with pytest.raises(IncompatibleError, match=message):
        open_torch(load_task(task), "nano", weights)


class Unbuilt(torch.nn.Module):
    """Fails as torch's compiler does where something of it is missing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """No answer."""
        raise torch._dynamo.exc.BackendCompilerFailed(lambda: None, RuntimeError("no C++ compiler"), None)


def test_a_machine_that_cannot_compile_is_told_what_to_do() -> None:
    """The compiler's first line, and what to install; the threads are given back."""
    before = torch.get_num_threads()
    with pytest.raises(NotReadyError, match=r"apt install g\+\+"):
        TorchRunner(Unbuilt(), (3,), threads=before + 1, compiled=True)  # type: ignore[arg-type]
    assert torch.get_num_threads() == before
