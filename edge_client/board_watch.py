"""Samples the board beside the agent and hands the readings in as messages. Owns no reading and no link."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from devices.boards import Machine
from devices.telemetry.sampler import Sampler
from edge_protocol.messages import Telemetry


def watch_this_board(state_dir: Path, every_s: float, emit: Callable[[Telemetry], None]) -> BoardWatch:
    """A watch over the machine that this runs on, not yet started."""
    return BoardWatch(Sampler(Machine(), state_dir=state_dir), every_s, emit)


class BoardWatch:
    """A thread that samples; a tool that hangs holds up nothing but the next sample.

    Args:
        sampler: of this board.
        every_s: seconds between two samples.
        emit: takes a message, from any thread.
    """

    def __init__(self, sampler: Sampler, every_s: float, emit: Callable[[Telemetry], None]) -> None:
        self._sampler, self._every_s, self._emit = sampler, every_s, emit
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="board-watch", daemon=True)

    def start(self) -> None:
        """Begin; the first sample comes after one interval."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more samples; does not wait for one that is being taken."""
        self._stopping.set()

    def _work(self) -> None:
        while not self._stopping.wait(self._every_s):
            self._emit(Telemetry(self._sampler.sample(monotonic()).values))
