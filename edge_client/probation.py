"""Whether a candidate may take over: it answers live samples beside the running release; pure but for its stopwatch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

import numpy as np
import numpy.typing as npt

from devices.runners.base import Answer
from edge_models.samples import F4
from edge_protocol.errors import DeploymentError, RoadcastError

Clock = Callable[[], float]
F8 = npt.NDArray[np.float64]
WARM_UP = 3
LOOKS = 3
"""Times that the samples are answered before a candidate is too slow, the fastest of each sample counting: a scheduler
that holds two of twenty answers up, all of them the candidate's, will not do so three times; a slow student is slow."""
_ENOUGH = 8


class Frames(Protocol):
    """The part of the inference loop's counters that a probation looks at."""

    taken: int
    answered: int
    missing: int


class Flow:
    """Whether frames were still answered while a candidate was tried.

    Args:
        frames: the counters, which go on.
    """

    def __init__(self, frames: Frames) -> None:
        self._frames = frames
        self._arrived, self._answered = self._now()

    def check(self) -> None:
        """Compare with the beginning; no frames at all are no fault of the candidate.

        Raises:
            DeploymentError: frames came, and none was answered.
        """
        arrived, answered = self._now()
        if arrived - self._arrived >= _ENOUGH and answered == self._answered:
            raise DeploymentError(
                f"{arrived - self._arrived} frames came while the candidate was tried and none was answered; "
                "it takes too much of this board"
            )

    def _now(self) -> tuple[int, int]:
        return self._frames.taken - self._frames.missing, self._frames.answered


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a probation measured.

    Attributes:
        samples: that both answered.
        latency_s, previous_latency_s: p95 of one sample, candidate and running release.
        agreement: share of samples with the same most likely answer; None without a running release or for forecasts.
    """

    samples: int
    latency_s: float
    previous_latency_s: float | None
    agreement: float | None


def try_candidate(
    candidate: Callable[[F4], Answer],
    running: Callable[[F4], Answer] | None,
    batches: Sequence[F4],
    *,
    latency_factor: float,
    latency_floor_s: float,
    classes: bool,
    agreement: float = 0.0,
    clock: Clock = perf_counter,
) -> Verdict:
    """Let both answer the same samples in turn, again when the candidate seems too slow.

    Args:
        candidate: the new runner's ``infer``, warmed up here.
        running: the running one's; None for a first release.
        batches: inputs as live frames gave them, each (N, *shape) float32, N ≥ 1.
        latency_factor: the candidate's p95 may be so many times the running one's.
        latency_floor_s: a p95 up to this is fast enough, whatever the ratio: of short times on a loaded board it says
            more about the scheduler than about the student.
        classes: whether logits are class scores that may agree.
        agreement: least share of samples that both answer alike; asked of eight samples or more.
        clock: seconds.

    Raises:
        DeploymentError: it does not answer, answers NaN, is too slow, or agrees too rarely; the message is the
            reason of the rollback.
    """
    for batch in [*batches[:1]] * WARM_UP:
        _checked(candidate, batch, clock)
    fastest = np.full((2, len(batches)), np.inf)
    for _ in range(LOOKS):
        times, same = _in_turn(candidate, running, batches, clock)
        fastest = np.minimum(fastest, times)
        latency, before = np.percentile(fastest, 95, axis=1).tolist() if len(batches) else (0.0, 0.0)
        if running is None or latency <= max(latency_factor * before, latency_floor_s):
            previous = before if running is not None and len(batches) else None
            return Verdict(len(batches), latency, previous, _agreed(same, agreement) if same and classes else None)
    raise DeploymentError(
        f"p95 latency {latency * 1e3:.2f} ms is above {latency_factor:g} times the running {before * 1e3:.2f} ms"
    )


def _in_turn(
    candidate: Callable[[F4], Answer], running: Callable[[F4], Answer] | None, batches: Sequence[F4], clock: Clock
) -> tuple[F8, list[bool]]:
    """Times of candidate and running release (2, batches) in seconds, 0 for none running; which answers are alike."""
    times, same = np.zeros((2, len(batches))), []
    for at, batch in enumerate(batches):
        answer, times[0, at] = _checked(candidate, batch, clock)
        if running is not None:
            old, times[1, at] = _timed(running, batch, clock)
            same += (answer.logits.argmax(1) == old.logits.argmax(1)).tolist()
    return times, same


def _agreed(same: Sequence[bool], least: float) -> float:
    """The share of samples that both answer alike.

    Raises:
        DeploymentError: it is below `least`, of enough samples.
    """
    alike = float(np.mean(same))
    if len(same) >= _ENOUGH and alike < least:
        raise DeploymentError(
            f"answers {alike:.0%} of {len(same)} samples as the running release does, below probation.agreement "
            f"{least:.0%}; look at what the release was trained on before it is pushed again"
        )
    return alike


def _timed(infer: Callable[[F4], Answer], batch: F4, clock: Clock) -> tuple[Answer, float]:
    begun = clock()
    return infer(batch), clock() - begun


def _checked(infer: Callable[[F4], Answer], batch: F4, clock: Clock) -> tuple[Answer, float]:
    try:
        answer, seconds = _timed(infer, batch, clock)
    except RoadcastError as error:
        raise DeploymentError(f"the candidate does not answer a live sample: {error}") from error
    if not (np.isfinite(answer.logits).all() and np.isfinite(answer.features).all()):
        raise DeploymentError("the candidate answers a live sample with NaN or infinity")
    return answer, seconds
