"""A runner of two: the second answers from the first failure of the device on, and only then."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from devices.runners.base import F4, Answer
from devices.runners.ort_runner import OrtRunner
from edge_client.standby import WithStandby
from edge_protocol.errors import DeviceError, IncompatibleError
from tests.fakes.student import PAYLOAD, TEMPLATE, X


class Gpu(OrtRunner):
    """Answers until it breaks."""

    def __init__(self) -> None:
        super().__init__(TEMPLATE, PAYLOAD)
        self.provider, self.broken, self.closed = "TensorRT", False, False

    def infer(self, x: F4) -> Answer:
        """Answer, or fail as a GPU does."""
        if self.broken:
            raise DeviceError("CUDA error 719")
        return super().infer(x)

    def close(self) -> None:
        """Note it."""
        self.closed = True


def test_the_standby_answers_the_sample_that_the_gpu_did_not() -> None:
    """No sample is lost, also with threads in it at once; the failure is told once; the plan is let go."""
    told: list[str] = []
    gpu = Gpu()
    pair = WithStandby(gpu, OrtRunner(TEMPLATE, PAYLOAD), told.append)
    before = pair.infer(X)
    assert (pair.provider, pair.reason) == ("TensorRT", "")
    gpu.broken = True
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda: answers.append(pair.infer(X))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    assert all(np.array_equal(answer.logits, before.logits) for answer in answers)
    assert told == ["CUDA error 719"]
    assert (pair.provider, pair.reason) == ("CPUExecutionProvider", "CUDA error 719")
    gpu.broken = False
    pair.infer(X)
    assert pair.provider == "CPUExecutionProvider", "a GPU that failed is not trusted again"


def test_a_sample_that_does_not_fit_is_no_failure_of_the_gpu() -> None:
    """It is refused by either, and the plan goes on."""
    with (
        WithStandby(Gpu(), OrtRunner(TEMPLATE, PAYLOAD), pytest.fail) as pair,
        pytest.raises(IncompatibleError, match="student takes"),
    ):
        pair.infer(X[:0])


def test_closing_frees_the_plan_and_leaves_the_standby() -> None:
    """The standby may be what serves."""
    gpu, standby = Gpu(), OrtRunner(TEMPLATE, PAYLOAD)
    pair = WithStandby(gpu, standby, pytest.fail)
    pair.close()
    pair.close()
    assert gpu.closed
    assert len(standby.infer(X).logits) == len(X)
