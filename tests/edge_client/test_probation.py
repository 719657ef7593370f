"""A candidate takes over only when it answers live samples, finitely and fast enough."""

from __future__ import annotations

import math
from typing import TypedDict

import numpy as np
import pytest

from devices.runners.base import Answer
from edge_client.inference import Counters
from edge_client.probation import Flow, try_candidate
from edge_protocol.errors import DeploymentError, IncompatibleError
from tests.fakes.clock import FakeClock


class Limits(TypedDict):
    """What a candidate's latency may be."""

    latency_factor: float
    latency_floor_s: float


LIMITS: Limits = {"latency_factor": 3.0, "latency_floor_s": 0.025}
BATCHES = [np.full((1, 3), i, np.float32) for i in range(10)]


class Student:
    """Answers after so many seconds of a fake clock."""

    def __init__(self, clock: FakeClock, seconds: float = 0.01, value: float = 1.0, best: int = 0) -> None:
        self.clock, self.seconds, self.value, self.best = clock, seconds, value, best

    def infer(self, x: np.ndarray) -> Answer:
        """One best class."""
        self.clock.advance(self.seconds)
        logits = np.zeros((len(x), 4), np.float32)
        logits[:, self.best] = self.value
        return Answer(np.full((len(x), 64), self.value, np.float32), logits)


def test_a_good_candidate_passes_and_its_agreement_is_measured() -> None:
    """Latency of both and the share of equal answers."""
    clock = FakeClock()
    new, old = Student(clock, 0.02), Student(clock, 0.01)
    verdict = try_candidate(new.infer, old.infer, BATCHES, **LIMITS, classes=True, clock=clock)
    assert verdict.samples == 10
    assert verdict.latency_s == pytest.approx(0.02, abs=1e-6)
    assert verdict.previous_latency_s == pytest.approx(0.01, abs=1e-6)
    assert verdict.agreement == 1
    other = Student(clock, best=2)
    assert try_candidate(other.infer, old.infer, BATCHES, **LIMITS, classes=True, clock=clock).agreement == 0
    assert try_candidate(other.infer, old.infer, BATCHES, **LIMITS, classes=False, clock=clock).agreement is None


def test_a_candidate_that_hardly_ever_agrees_is_sent_back() -> None:
    """All ten samples answered otherwise: sent back; of few samples, or of forecasts, no agreement is asked."""
    clock = FakeClock()
    new, old = Student(clock, best=2), Student(clock)
    with pytest.raises(DeploymentError, match=r"answers 0% of 10 samples as the running release does, .* 10%"):
        try_candidate(new.infer, old.infer, BATCHES, **LIMITS, classes=True, agreement=0.1, clock=clock)
    try_candidate(new.infer, old.infer, BATCHES[:7], **LIMITS, classes=True, agreement=0.1, clock=clock)
    try_candidate(new.infer, old.infer, BATCHES, **LIMITS, classes=False, agreement=0.1, clock=clock)
    try_candidate(old.infer, old.infer, BATCHES, **LIMITS, classes=True, agreement=1.0, clock=clock)


def test_a_first_release_is_compared_with_nothing() -> None:
    """Without a running release there is no latency to keep and nobody to agree with."""
    clock = FakeClock()
    verdict = try_candidate(Student(clock, 9).infer, None, BATCHES, **LIMITS, classes=True, clock=clock)
    assert (verdict.previous_latency_s, verdict.agreement) == (None, None)
    nothing = try_candidate(Student(clock).infer, None, [], **LIMITS, classes=True, clock=clock)
    assert nothing.samples == 0


def test_a_candidate_that_is_too_slow_is_sent_back() -> None:
    """The reason names both latencies."""
    clock = FakeClock()
    with pytest.raises(DeploymentError, match=r"p95 latency 50\.00 ms is above 3 times the running 10\.00 ms"):
        try_candidate(Student(clock, 0.05).infer, Student(clock).infer, BATCHES, **LIMITS, classes=True, clock=clock)


def test_latencies_too_short_to_compare_do_not_send_a_candidate_back() -> None:
    """9 ms after 0.2 ms is a loaded board, not a slow student; just above the floor the ratio counts again."""
    clock = FakeClock()
    new, old = Student(clock, 0.009), Student(clock, 0.0002)
    assert try_candidate(new.infer, old.infer, BATCHES, **LIMITS, classes=True, clock=clock).samples == 10
    with pytest.raises(DeploymentError, match="p95 latency 26"):
        try_candidate(Student(clock, 0.026).infer, old.infer, BATCHES, **LIMITS, classes=True, clock=clock)


def test_a_scheduler_that_holds_answers_up_does_not_send_a_candidate_back() -> None:
    """Two of twenty answers take 72 ms, all of them the candidate's: the samples are answered again, and it passes."""
    clock = FakeClock()
    held_up = iter([0.0005] * 3 + ([0.0005] * 9 + [0.072]) * 2 + [0.0005] * 20)
    new, old = Student(clock), Student(clock, 0.0005)

    def infer(x: np.ndarray) -> Answer:
        new.seconds = next(held_up)
        return new.infer(x)

    verdict = try_candidate(infer, old.infer, [*BATCHES, *BATCHES], **LIMITS, classes=True, clock=clock)
    assert (verdict.samples, verdict.agreement) == (20, 1)
    assert verdict.latency_s == pytest.approx(0.0005, abs=1e-6)
    assert next(held_up, None) is None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_candidate_that_answers_nonsense_is_sent_back(value: float) -> None:
    """NaN and infinity are no answers."""
    clock = FakeClock()
    with pytest.raises(DeploymentError, match="NaN or infinity"):
        try_candidate(Student(clock, value=value).infer, None, BATCHES, **LIMITS, classes=True, clock=clock)


def test_a_candidate_that_does_not_answer_is_sent_back() -> None:
    """The runner's error is the reason."""

    def refuse(_: np.ndarray) -> Answer:
        raise IncompatibleError("another shape")

    with pytest.raises(DeploymentError, match="another shape"):
        try_candidate(refuse, None, BATCHES, **LIMITS, classes=True)


def test_frames_must_go_on_being_answered_while_a_candidate_is_tried() -> None:
    """A candidate that starves the running release fails; a camera that gives no frames is not its fault."""
    counters = Counters(taken=5, answered=5)
    flow = Flow(counters)
    flow.check()
    counters.taken += 100
    counters.missing += 100
    flow.check()
    counters.taken += 8
    with pytest.raises(DeploymentError, match="none was answered"):
        flow.check()
    counters.answered += 1
    flow.check()
