"""Buffers that stay, on ONNX Runtime's real binding: its CPU is the one device that is here."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest

from devices.runners.ort_binding import Binding
from devices.runners.ort_runner import OrtRunner, open_student
from edge_models.tasks import load_task
from tests.fakes.small_centre import artifact_files, int8_files

SHAPE = load_task("vehicle").input.shape
X = np.random.default_rng(0).normal(size=(9, *SHAPE)).astype(np.float32)


def opened(*, int8: bool = False) -> Binding:
    """A real student's session with its buffers."""
    files = int8_files() if int8 else artifact_files()
    return Binding(open_student(files.template, files.weights), onnxruntime, SHAPE, "cpu")


@pytest.mark.parametrize("int8", [False, True])
def test_every_batch_in_any_order_is_answered_as_without_binding(int8: bool) -> None:
    """Larger, smaller, the same again; plain and INT8: the same numbers."""
    files, bound = int8_files() if int8 else artifact_files(), opened(int8=int8)
    with OrtRunner(files.template, files.weights) as plain:
        for batch in (1, 1, 7, 2, 9, 9, 1):
            for given, reference in zip(bound.infer(X[:batch]), plain.infer(X[:batch]), strict=True):
                np.testing.assert_array_equal(given, reference)


def test_an_answer_is_the_caller_s_own() -> None:
    """It does not change with the next question, nor with the array that was asked about; strides do not matter."""
    bound, x = opened(), X.copy()
    first = bound.infer(x[:4])
    kept = [part.copy() for part in first]
    x[:] = 0
    second = bound.infer(X[1:9:2])
    assert not np.array_equal(second.logits, first.logits)
    for now, then in zip(first, kept, strict=True):
        np.testing.assert_array_equal(now, then)
    np.testing.assert_array_equal(second.features, bound.infer(X[1:9:2].copy()).features)


def test_threads_that_ask_at_once_get_their_own_answers() -> None:
    """There is one set of buffers, and batches of three sizes want it."""
    bound = opened()
    asked = [X[number : number + 1 + number % 3] for number in range(6)] * 10
    expected = [bound.infer(x).logits for x in asked]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: bound.infer(x).logits, asked))
    for given, reference in zip(found, expected, strict=True):
        np.testing.assert_array_equal(given, reference)


def test_a_device_that_this_runtime_lacks_is_an_error_and_not_the_cpu() -> None:
    """The real allocator refuses; asking again fails again."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("an ONNX Runtime for GPUs is installed here")
    files = artifact_files()
    bound = Binding(open_student(files.template, files.weights), onnxruntime, SHAPE)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="memory on the CUDA device"):
            bound.infer(X)
