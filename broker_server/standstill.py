"""Time that makes nobody late: the broker is away, or the clock was set. Moves every deadline by it; pure.

Owns whether devices can be heard. A device cannot commit, report or be silent while the server hears nobody.
"""

from __future__ import annotations

from collections.abc import Iterable

from broker_server.effects import Effect
from broker_server.registry import Registry
from broker_server.rollouts import Rollouts
from broker_server.task_rounds import TaskRounds


class Standstill:
    """Begins when the link is lost, and ends when it is back; between them no deadline passes.

    Args:
        registry, rollouts, tasks: whose deadlines.
    """

    def __init__(self, registry: Registry, rollouts: Rollouts, tasks: Iterable[TaskRounds]) -> None:
        self._registry, self._rollouts, self._tasks = registry, rollouts, tasks
        self._since_s: float | None = None

    def __bool__(self) -> bool:
        return self._since_s is not None

    def begin(self, now: float) -> None:
        """Nobody can be heard any more."""
        self._since_s = now if self._since_s is None else self._since_s

    def end(self, now: float) -> list[Effect]:
        """Devices can be heard again: what waits for them waits as much longer as it was quiet."""
        since_s, self._since_s = self._since_s, None
        return [] if since_s is None else self._shift(now - since_s)

    def clock_set(self, by_s: float) -> list[Effect]:
        """The clock shows `by_s` seconds more than have passed, or less: move with it."""
        if self._since_s is not None:
            self._since_s += by_s
        return self._shift(by_s)

    def _shift(self, by_s: float) -> list[Effect]:
        self._registry.shift(by_s)
        self._rollouts.shift(by_s)
        return [effect for task in self._tasks for effect in task.shift(by_s)]
