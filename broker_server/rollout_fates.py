"""How one device of a rollout fares: one table; owns no device and no rollout."""

from __future__ import annotations

from enum import Enum

from edge_protocol.fsm import Table


class Fate(Enum):
    """How a device of a rollout fares."""

    ABSENT = "absent"
    WAITING = "waiting"
    MEASURING = "measuring"
    COMMITTED = "committed"
    FAILED = "failed"


class Sign(Enum):
    """What tells how a device fares."""

    SEEN = "seen"
    LOST = "lost"
    RUN = "run"
    COMMIT = "commit"
    FAIL = "fail"


FATES: Table[Fate, Sign] = {
    (Fate.ABSENT, Sign.SEEN): Fate.WAITING,
    (Fate.WAITING, Sign.COMMIT): Fate.COMMITTED,
    (Fate.WAITING, Sign.RUN): Fate.MEASURING,
    (Fate.WAITING, Sign.FAIL): Fate.FAILED,
    (Fate.MEASURING, Sign.COMMIT): Fate.COMMITTED,
    (Fate.MEASURING, Sign.LOST): Fate.WAITING,
    (Fate.MEASURING, Sign.FAIL): Fate.FAILED,
    (Fate.COMMITTED, Sign.LOST): Fate.WAITING,
    (Fate.COMMITTED, Sign.FAIL): Fate.FAILED,
}
"""A device that was away when it was offered the release has all its time from when it is back. One that commits and
goes silent while its wave is watched has to come back. Where latency is limited, one that runs the release has
committed only when it has said how fast it answers. A failure stays one."""
UNDECIDED = frozenset({Fate.WAITING, Fate.MEASURING})
