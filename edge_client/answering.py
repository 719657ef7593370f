"""The half of the brain that answers rounds; pure: owns which round is open and how far its answer is, no file.

A round names a release, and training for it begins on that one; on an older one, of a round of proxies, only when the
device had to stay with it: nothing newer is under way. A release that is offered once training runs takes the trainer
when it is ready; what was told by then came from the older one, and counts.

Training on proxies that has begun goes on when its round closes: the server keeps a late answer and counts it with its
age in later rounds, so a device slower than a deadline teaches too. The newest round waits meanwhile, and comes next.
"""

from __future__ import annotations

from enum import Enum

from edge_client.backoff import Backoff
from edge_client.effects import (
    Abandon,
    Adopt,
    Effect,
    Fetch,
    Fetched,
    FetchFailed,
    Stop,
    Train,
    Trained,
    TrainFailed,
)
from edge_protocol.effects import Drop, Send
from edge_protocol.messages import Call, PrototypeCall, RoundCall
from edge_protocol.task import TaskSpec


class Phase(Enum):
    """How far the answer to the open round is."""

    NONE = "none"
    WAITING = "waiting"
    FETCHING = "fetching"
    TRAINING = "training"
    REPORTING = "reporting"


class Answering:
    """Rounds of one task on one device.

    Args:
        device: the device's name, for the spread of retries.
        spec: the task.
        answered: number of the last round that this device answered, as its outbox remembers it.
        spent: the privacy budget allows no further report.
        prototypes: rounds that ask for class means are answered; otherwise they are dropped.

    Attributes:
        phase: how far the answer is.
        job: that trains for it.
        spent: as above; rounds then only refit the personal head.
    """

    def __init__(
        self, *, device: str, spec: TaskSpec, answered: int, spent: bool = False, prototypes: bool = False
    ) -> None:
        self.phase = Phase.NONE
        self.spent = spent
        self.job: int | None = None
        self._spec, self._prototypes = spec, prototypes
        self._done = answered
        self._call: Call | None = None
        self._then: RoundCall | None = None  # the newest call, open or not, when it came during training for another
        self._retry = Backoff(device)

    def called(self, call: Call) -> list[Effect]:
        """Take the state of a round, as often as it comes."""
        if call.task != self._spec.name or call.label_space != self._spec.label_space:
            return [
                Drop("wrong-task", f"round {call.number} is of task {call.task!r} with label space {call.label_space}")
            ]
        if isinstance(call, PrototypeCall) and not self._prototypes:
            return [*self._abandon(), Drop("prototypes-not-allowed", f"round {call.number} asks for class means")]
        newest = self._then or self._call
        known = newest.number if newest else self._done
        if call.number < known:
            return [Drop("old-round", f"round {call.number} was called after round {known}: the server is behind")]
        if call.number == known and (newest is None or call.open or not newest.open):
            return []
        if self.phase is Phase.TRAINING and isinstance(self._call, RoundCall) and isinstance(call, RoundCall):
            self._then = call
            return []
        ended = self._abandon()
        if call.open:
            self._call, self.phase = call, Phase.WAITING
        else:
            self._done = call.number
        return ended

    def advance(self, *, release: int, settled: bool, blocked: bool, job: int, now: float) -> list[Effect]:
        """Go on with the open round: on its release, or on an older one that the device had to stay with.

        Args:
            release: counter of the release that answers frames; 0 for none.
            settled: no deployment is under way.
            blocked: the trainer is wanted for a deployment; a job of ours makes way.
            job: number of the next training job.
            now: seconds.
        """
        call = self._call
        if call is None:
            return []
        if blocked and self.job is not None:
            stopped = self.job
            self._turn(Phase.WAITING)
            return [Stop(stopped)]
        ready = _fits(call, release, settled=settled)
        waiting = self.phase is Phase.WAITING and (self._retry.at is None or self._retry.due(now))
        if not (waiting and ready and not blocked):
            return []
        if isinstance(call, RoundCall):
            self.phase = Phase.FETCHING
            return [Fetch(call.proxy)]
        if release != call.release:
            return []  # features of another trunk: nobody could use them
        self.phase, self.job = Phase.TRAINING, job
        return [Train(job, release, None, call)]

    def fetched(
        self, event: Fetched | FetchFailed, *, release: int, settled: bool, blocked: bool, job: int, now: float
    ) -> list[Effect]:
        """The proxy set arrived, or could not be stored; train, unless that is to wait by now: see `advance`."""
        call = self._call
        if self.phase is not Phase.FETCHING or not isinstance(call, RoundCall) or event.sha256 != call.proxy.sha256:
            return []
        if isinstance(event, FetchFailed):
            self._retry.fail(now)
            self.phase = Phase.WAITING
            return [Drop("round-delayed", event.reason)]
        if blocked or not _fits(call, release, settled=settled):
            self.phase = Phase.WAITING
            return []
        self.phase, self.job = Phase.TRAINING, job
        return [Train(job, release, None, call)]

    def trained(self, event: Trained | TrainFailed, now: float) -> list[Effect]:
        """The job ended: report, or try again while the round is open."""
        if self.phase is not Phase.TRAINING or event.job != self.job or self._call is None:
            return []
        if isinstance(event, TrainFailed) or (event.report is None and not event.spent):
            self._retry.fail(now)
            self._turn(Phase.WAITING)
            return [Drop("round-failed", event.reason if isinstance(event, TrainFailed) else "no report was written")]
        self._done, self.spent = self._call.number, event.spent
        self._turn(Phase.NONE if event.report is None else Phase.REPORTING)
        return [Adopt(event.job), *([Send(event.report, durable=True)] if event.report else [])]

    def delivered(self, number: int | None) -> None:
        """The server has the report of round `number`."""
        if self.phase is Phase.REPORTING and number == self._done:
            self.phase, self._call = Phase.NONE, None

    def next_deadline(self) -> float | None:
        """Time of the next attempt (s)."""
        return self._retry.at

    def _turn(self, phase: Phase) -> None:
        """The job is over: come to a phase of its round, or turn to the newest one when that round is over too."""
        self.job, then, self._then = None, self._then, None
        if then is not None:
            self._retry.reset()
            self._done = max(self._done, then.number - then.open)
            self._call, phase = (then, Phase.WAITING) if then.open else (None, Phase.NONE)
        elif phase is Phase.NONE:
            self._call = None
        self.phase = phase

    def _abandon(self) -> list[Effect]:
        fetched = self._call if self.phase is Phase.FETCHING else None
        ended: list[Effect] = [Abandon(fetched.proxy.sha256)] if isinstance(fetched, RoundCall) else []
        if self.job is not None:
            ended.append(Stop(self.job))
        self.job, self._call, self._then, self.phase = None, None, None, Phase.NONE
        self._retry.reset()
        return ended


def _fits(call: Call, release: int, *, settled: bool) -> bool:
    """Whether a round may be answered on a release: on its own, or on the one that the device had to stay with."""
    return release == call.release or (settled and 0 < release < call.release)
