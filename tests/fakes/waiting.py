"""Bounded waiting: for a condition, and for an event in an inbox. No bare sleep stands for synchronisation."""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import Empty, Queue
from typing import Any, TypeVar

T = TypeVar("T")
DEADLINE_S = 20.0


def wait_for(condition: Callable[[], T], what: str, *, within_s: float = DEADLINE_S, every_s: float = 0.01) -> T:
    """Return the condition's first true value; fail the test when there is none in time."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"no {what} within {within_s} s"
        time.sleep(every_s)
    return value


def next_of(inbox: Queue[Any], kind: type[T], *, within_s: float = DEADLINE_S) -> T:
    """Return the next event of a kind, leaving out the others before it."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            event = inbox.get(timeout=max(deadline - time.monotonic(), 0.001))
        except Empty:
            raise AssertionError(f"no {kind.__name__} within {within_s} s") from None
        if isinstance(event, kind):
            return event


def take(inbox: Queue[Any], kind: type[T], count: int, *, within_s: float = DEADLINE_S) -> list[T]:
    """Return the next `count` events of a kind."""
    return [next_of(inbox, kind, within_s=within_s) for _ in range(count)]
