"""When a training job stands back: while the board is hot or busy; pure: owns limits and states, no process, no clock.

Frames come first: a job that waits costs a round at most. Every limit has a second, lower one at which it is over, so
that a job is not stopped and started at each reading.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from edge_protocol.errors import ConfigError
from edge_protocol.fsm import Table, step


class PauseConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When training waits.

    Only heat holds it unless the installer says more: a board that is slower than its camera drops frames whether it
    trains or not, and would never learn.

    Attributes:
        hot_c: it is paused at this temperature of the hottest thermal zone (°C) ...
        cool_c: ... and goes on below this one.
        drop_share: paused when this share of the frames gave way to newer ones; None for no limit.
        latency_ms: paused at this p95 from a frame's arrival to its answer; None for no limit.
        load: paused at this load average over a minute, per core; the job itself is part of it. None for no limit.
        relief: busy is over below this share of each limit.
        patience_s: a job that had to wait so long in one piece is ended, to be tried again later.
    """

    hot_c: Annotated[float, Meta(gt=0, le=150)] = 95.0
    cool_c: Annotated[float, Meta(gt=0, le=150)] = 85.0
    drop_share: Annotated[float, Meta(gt=0, le=1)] | None = None
    latency_ms: Annotated[float, Meta(gt=0)] | None = None
    load: Annotated[float, Meta(gt=0)] | None = None
    relief: Annotated[float, Meta(gt=0, le=1)] = 0.7
    patience_s: Annotated[float, Meta(gt=0)] = 600.0

    def __post_init__(self) -> None:
        if self.cool_c > self.hot_c:
            raise ConfigError(f"train.pause: cool_c {self.cool_c:g} is above hot_c {self.hot_c:g}")


class Reading(NamedTuple):
    """What the board says now; None where it does not say.

    Attributes:
        celsius: of the hottest thermal zone.
        drop_share: of the frames since the last reading that gave way to newer ones.
        latency_ms: p95 from arrival to answer.
        load: average over a minute, per core.
    """

    celsius: float | None = None
    drop_share: float | None = None
    latency_ms: float | None = None
    load: float | None = None


class Board(Enum):
    """How the board is."""

    CALM = "calm"
    HOT = "hot"
    BUSY = "busy"


def assess(before: Board, reading: Reading, limits: PauseConfig) -> Board:
    """Say how the board is, from how it was and what it says; hot comes before busy, silence is calm."""
    if reading.celsius is not None and reading.celsius >= (limits.cool_c if before is Board.HOT else limits.hot_c):
        return Board.HOT
    share = limits.relief if before is Board.BUSY else 1.0
    for name in ("drop_share", "latency_ms", "load"):
        value, limit = getattr(reading, name), getattr(limits, name)
        if value is not None and limit is not None and value >= share * limit:
            return Board.BUSY
    return Board.CALM


class Phase(Enum):
    """Where a job is."""

    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"


class Cue(Enum):
    """What the board's state asks of a job."""

    GO = "go"
    HOLD = "hold"


JOB: Table[Phase, Cue] = {
    (Phase.WAITING, Cue.GO): Phase.RUNNING,
    (Phase.WAITING, Cue.HOLD): Phase.WAITING,
    (Phase.RUNNING, Cue.GO): Phase.RUNNING,
    (Phase.RUNNING, Cue.HOLD): Phase.PAUSED,
    (Phase.PAUSED, Cue.GO): Phase.RUNNING,
    (Phase.PAUSED, Cue.HOLD): Phase.PAUSED,
}


class Governor:
    """Follows the board and one job on it.

    Args:
        limits: when a job waits.
        timeout_s: how long a job may run; pauses do not count.

    Attributes:
        board: how the board is.
        phase: where the job is.
        pauses: times that a job was held, since the start.
    """

    def __init__(self, limits: PauseConfig, timeout_s: float) -> None:
        self.board, self.phase, self.pauses = Board.CALM, Phase.WAITING, 0
        self._limits, self._timeout_s = limits, timeout_s
        self._at = self._ran_s = self._held_s = 0.0

    def read(self, reading: Reading) -> None:
        """Take what the board says."""
        self.board = assess(self.board, reading, self._limits)

    def begin(self, now: float) -> Phase:
        """A new job wants to start at `now` (s)."""
        self.phase, self._at, self._ran_s, self._held_s = Phase.WAITING, now, 0.0, 0.0
        self.pauses += self.board is not Board.CALM
        return self._cue()

    def advance(self, now: float) -> Phase:
        """Say where the job belongs at `now` (s)."""
        if self.phase is Phase.RUNNING:
            self._ran_s += now - self._at
        else:
            self._held_s += now - self._at
        self._at = now
        return self._cue()

    def overdue(self) -> str:
        """Why the job must end; "" as long as it need not."""
        if self._ran_s >= self._timeout_s:
            return f"killed after {self._timeout_s:g} s"
        if self.phase is not Phase.RUNNING and self._held_s >= self._limits.patience_s:
            return f"put off: the board was {self.board.value} for {self._held_s:.0f} s"
        return ""

    def _cue(self) -> Phase:
        before, cue = self.phase, Cue.GO if self.board is Board.CALM else Cue.HOLD
        self.phase = step(JOB, before, cue)
        if self.phase is Phase.RUNNING and before is not Phase.RUNNING:
            self._held_s = 0.0
        self.pauses += (before, self.phase) == (Phase.RUNNING, Phase.PAUSED)
        return self.phase
