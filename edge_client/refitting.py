"""The part of the brain that refits the personal head between rounds; pure: owns why and when, no job's result.

A round and a release fit heads anyway and come first: they take the one trainer, and what they adopt is what was
wanted here.
"""

from __future__ import annotations

from edge_client.backoff import Backoff
from edge_client.effects import Adopt, Effect, Stop, Train, Trained, TrainFailed
from edge_protocol.effects import Drop

MAX_FAILURES = 5
"""In a row; a board that cannot train is not asked again before the next wish."""


class Refitting:
    """One wish for another head, however often it is made.

    Args:
        device: the device's name, for the spread of retries.
    """

    def __init__(self, device: str) -> None:
        self.wanted = False
        self.job: int | None = None
        self._retry = Backoff(device, first_s=60.0, longest_s=3600.0)

    def want(self) -> None:
        """Ask for a refit as soon as the trainer is free."""
        if not self.wanted and self.job is None:
            self._retry.reset()
        self.wanted = True

    def missed(self, now: float) -> None:
        """A job failed that would have fitted a head: try again later, a few times."""
        self._retry.fail(now)
        self.wanted = self._retry.failures < MAX_FAILURES

    def advance(self, *, release: int, free: bool, job: int, now: float) -> list[Effect]:
        """Start when there is a release to fit on and nobody else trains; make way for who does."""
        if self.job is not None:
            if free:
                return []
            stopped, self.job, self.wanted = self.job, None, True
            return [Stop(stopped)]
        resting = self._retry.at is not None and not self._retry.due(now)
        if resting or not (self.wanted and free and release):
            return []
        self.wanted, self.job = False, job
        return [Train(job, release, None, None)]

    def trained(self, event: Trained | TrainFailed, now: float) -> list[Effect]:
        """The job ended: serve its head, or try again later."""
        if event.job != self.job:
            return []
        self.job = None
        if isinstance(event, TrainFailed):
            self.missed(now)
            return [Drop("refit-failed", event.reason)]
        self._retry.reset()
        return [Adopt(event.job)]

    def adopted(self) -> None:
        """Somebody else's job has fitted a head that serves."""
        self.wanted = False
        self._retry.reset()

    def next_deadline(self) -> float | None:
        """Time of the next attempt (s)."""
        return self._retry.at
