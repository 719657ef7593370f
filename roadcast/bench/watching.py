"""Heat and clocks while something runs, once a second from a thread of its own; owns no sensor."""

from __future__ import annotations

import threading
from collections.abc import Callable

from devices.latency.sensors import Moment, Sensors

EVERY_S = 1.0
"""Reading costs about a millisecond, which one query in a second may feel."""


class Watch:
    """Watches a board from `begin` to `end`; a board that has nothing to watch costs no thread.

    Args:
        sensors: of the board.
        wall: nanoseconds.
    """

    def __init__(self, sensors: Sensors, wall: Callable[[], int]) -> None:
        self._sensors, self._wall = sensors, wall
        self._moments: list[Moment] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._begun = 0

    def begin(self) -> None:
        """Take the first look, and go on in a thread."""
        self._begun = self._wall()
        self._look()
        if not self._moments[0].empty:
            self._thread.start()

    def end(self) -> tuple[Moment, ...]:
        """Take the last look; return all, none where nothing could be seen."""
        self._done.set()
        if not self._thread.is_alive() and self._moments[0].empty:
            return ()
        self._thread.join()
        self._look()
        return tuple(self._moments)

    def _look(self) -> None:
        self._moments.append(self._sensors.moment((self._wall() - self._begun) / 1e9))

    def _run(self) -> None:
        while not self._done.wait(EVERY_S):
            self._look()
