"""Where a rollout stands and what moves it: one table; owns no rollout and no device."""

from __future__ import annotations

from enum import Enum

from edge_protocol.fsm import Table


class RolloutState(Enum):
    """State of a rollout."""

    DRAFT = "draft"
    CANARY = "canary"
    RAMPING = "ramping"
    PAUSED = "paused"
    COMPLETE = "complete"
    ABORTED = "aborted"


class RolloutEvent(Enum):
    """What moves a rollout between states."""

    START = "start"
    ADVANCE = "advance"
    FINISH = "finish"
    PAUSE = "pause"
    RESUME_CANARY = "resume-canary"
    RESUME = "resume"
    ABORT = "abort"
    ROLLBACK = "rollback"


_S, _E = RolloutState, RolloutEvent
TABLE: Table[RolloutState, RolloutEvent] = {
    (_S.DRAFT, _E.START): _S.CANARY,
    (_S.DRAFT, _E.ABORT): _S.ABORTED,
    (_S.CANARY, _E.ADVANCE): _S.RAMPING,
    (_S.CANARY, _E.PAUSE): _S.PAUSED,
    (_S.CANARY, _E.ABORT): _S.ABORTED,
    (_S.RAMPING, _E.ADVANCE): _S.RAMPING,
    (_S.RAMPING, _E.FINISH): _S.COMPLETE,
    (_S.RAMPING, _E.PAUSE): _S.PAUSED,
    (_S.RAMPING, _E.ABORT): _S.ABORTED,
    (_S.PAUSED, _E.RESUME_CANARY): _S.CANARY,
    (_S.PAUSED, _E.RESUME): _S.RAMPING,
    (_S.PAUSED, _E.ABORT): _S.ABORTED,
    (_S.COMPLETE, _E.ROLLBACK): _S.ABORTED,
}
MOVING = frozenset({_S.CANARY, _S.RAMPING})
ACTIVE = MOVING | {_S.PAUSED}
