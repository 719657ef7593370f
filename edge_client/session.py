"""What the device is doing, as its fleet sees it: one table; owns no link and no training."""

from __future__ import annotations

from enum import Enum

from edge_protocol.fsm import Table


class Session(Enum):
    """States of a device towards the server."""

    OFFLINE = "offline"
    CONNECTING = "connecting"
    IDLE = "idle"
    TRAINING = "training"
    REPORTING = "reporting"
    SPENT = "privacy budget spent"


class SessionEvent(Enum):
    """What moves a session."""

    START = "start"
    LINK = "link"
    LOSE = "lose"
    TRAIN = "train"
    REPORT = "report"
    REST = "rest"
    SPEND = "spend"
    STOP = "stop"


_S, _E = Session, SessionEvent
ONLINE = (_S.IDLE, _S.TRAINING, _S.REPORTING, _S.SPENT)

SESSION: Table[Session, SessionEvent] = {
    (_S.OFFLINE, _E.START): _S.CONNECTING,
    (_S.CONNECTING, _E.LINK): _S.IDLE,
    (_S.IDLE, _E.TRAIN): _S.TRAINING,
    (_S.IDLE, _E.REPORT): _S.REPORTING,
    (_S.TRAINING, _E.REPORT): _S.REPORTING,
    (_S.TRAINING, _E.REST): _S.IDLE,
    (_S.REPORTING, _E.TRAIN): _S.TRAINING,
    (_S.REPORTING, _E.REST): _S.IDLE,
    (_S.IDLE, _E.SPEND): _S.SPENT,
    (_S.TRAINING, _E.SPEND): _S.SPENT,
    (_S.REPORTING, _E.SPEND): _S.SPENT,
    **{(state, _E.LOSE): _S.CONNECTING for state in ONLINE},
    **{(state, _E.STOP): _S.OFFLINE for state in (_S.CONNECTING, *ONLINE)},
}
"""A round goes on while the link is lost; when it is back, the session follows what the round does by then. A device
whose privacy budget is spent stays in SPENT: it serves and trains its own head, and reports no more.
"""
