"""Where one release stands on this device: one table; owns no file and no runner."""

from __future__ import annotations

from enum import Enum

from edge_protocol.fsm import Table


class Stage(Enum):
    """States of a deployment."""

    IDLE = "idle"
    OFFERED = "offered"
    FETCHING = "fetching"
    STAGED = "staged"
    BUILDING = "building"
    PROBATION = "probation"
    COMMITTED = "committed"
    REJECTED = "rejected"
    FAILED = "failed"
    ROLLED_BACK = "rolled-back"
    PAUSED = "paused"


class Step(Enum):
    """What moves a deployment."""

    OFFER = "offer"
    REFUSE = "refuse"
    KEEP = "keep"
    ACCEPT = "accept"
    FETCHED = "fetched"
    FALL_BACK = "fall-back"
    BUILD = "build"
    BUILT = "built"
    PASS = "pass"  # noqa: S105  # a probation is passed; no secret
    FAIL = "fail"
    PAUSE = "pause"
    RETRY = "retry"


_S, _E = Stage, Step
BUSY = (_S.OFFERED, _S.FETCHING, _S.STAGED, _S.BUILDING, _S.PROBATION, _S.PAUSED)
"""A deployment is under way."""
ENDED = (_S.REJECTED, _S.FAILED, _S.ROLLED_BACK)
"""A deployment ended without its release being installed."""

DEPLOYMENT: Table[Stage, Step] = {
    (_S.IDLE, _E.OFFER): _S.OFFERED,
    (_S.OFFERED, _E.REFUSE): _S.REJECTED,
    (_S.OFFERED, _E.KEEP): _S.COMMITTED,
    (_S.OFFERED, _E.ACCEPT): _S.FETCHING,
    (_S.FETCHING, _E.FETCHED): _S.STAGED,
    (_S.FETCHING, _E.PAUSE): _S.PAUSED,
    (_S.FETCHING, _E.FAIL): _S.FAILED,
    (_S.STAGED, _E.BUILD): _S.BUILDING,
    (_S.STAGED, _E.FAIL): _S.ROLLED_BACK,
    (_S.STAGED, _E.PAUSE): _S.PAUSED,
    (_S.STAGED, _E.FALL_BACK): _S.FETCHING,
    (_S.BUILDING, _E.BUILT): _S.PROBATION,
    (_S.PROBATION, _E.PASS): _S.COMMITTED,
    (_S.PROBATION, _E.FAIL): _S.ROLLED_BACK,
    (_S.PROBATION, _E.PAUSE): _S.PAUSED,
    (_S.PROBATION, _E.FALL_BACK): _S.FETCHING,
    (_S.PAUSED, _E.RETRY): _S.FETCHING,
    (_S.FAILED, _E.RETRY): _S.FETCHING,
    **{(state, _E.OFFER): _S.OFFERED for state in (*BUSY, _S.COMMITTED, *ENDED)},
}
"""A newer offer takes the place of whatever is under way. COMMITTED is reached through PROBATION, or kept when the
offer is the release that runs already. A variant that fails here gives way to the plain artifact of its release. FAILED
and PAUSED, for want of a link or of room, are tried again; ROLLED_BACK is not: the release itself is at fault."""
