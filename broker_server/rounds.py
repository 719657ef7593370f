"""One round: its states, who answered, when it is enough, and why a report does not count; pure. Owns no other round.

Round 0 is the first release of a task: it is distilled from the server's own anchors and asks no device.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import msgspec

from broker_server.floor import Floor
from broker_server.judge import JudgeRules
from broker_server.records import RoundRecord
from edge_protocol.blobs import BlobRef
from edge_protocol.fsm import Table, step
from edge_protocol.ids import DeviceId
from edge_protocol.messages import PROXY_BYTES, Call, PrototypeCall, PrototypeReport, Report, RoundCall
from edge_protocol.task import TaskSpec
from edge_protocol.trunks import TrunkAsk
from edge_protocol.vote_codec import CodedVotes, shape_of
from edge_protocol.votes import Votes

MAX_REASON = 500
REPORT_ROUNDS = 8
"""Reports older than this many rounds no longer count."""
ROUND_CLOSED = "round-closed"


class RoundState(Enum):
    """State of a round."""

    OPEN = "open"
    COLLECTING = "collecting"
    DISTILLING = "distilling"
    JUDGING = "judging"
    RELEASED = "released"
    ABANDONED = "abandoned"


class RoundEvent(Enum):
    """What moves a round between states."""

    CALL = "call"
    BEGIN = "begin"
    ENOUGH = "enough"
    TOO_FEW = "too-few"
    DISTILLED = "distilled"
    FAILED = "failed"
    REFUSED = "refused"
    RELEASED = "released"
    SUPERSEDED = "superseded"
    RESTARTED = "restarted"


_S, _E = RoundState, RoundEvent
TABLE: Table[RoundState, RoundEvent] = {
    (_S.OPEN, _E.CALL): _S.COLLECTING,
    (_S.OPEN, _E.BEGIN): _S.DISTILLING,
    (_S.COLLECTING, _E.ENOUGH): _S.DISTILLING,
    (_S.COLLECTING, _E.TOO_FEW): _S.ABANDONED,
    (_S.COLLECTING, _E.SUPERSEDED): _S.ABANDONED,
    (_S.DISTILLING, _E.DISTILLED): _S.JUDGING,
    (_S.DISTILLING, _E.FAILED): _S.ABANDONED,
    (_S.DISTILLING, _E.SUPERSEDED): _S.ABANDONED,
    (_S.DISTILLING, _E.RESTARTED): _S.DISTILLING,
    (_S.JUDGING, _E.REFUSED): _S.ABANDONED,
    (_S.JUDGING, _E.FAILED): _S.ABANDONED,
    (_S.JUDGING, _E.RELEASED): _S.RELEASED,
    (_S.JUDGING, _E.RESTARTED): _S.DISTILLING,
}
CLOSED = frozenset({RoundState.RELEASED, RoundState.ABANDONED})


@dataclass(slots=True)
class Round:
    """A round in progress.

    Attributes:
        proxy: the proxy set to answer; None for round 0, and for one that asks for class means.
        quorum, enough: reports that it needs, and that close it before its deadline (None: those of all present).
        reports: accepted while it took reports: see `RoundRecord`.
        answered: device → id of the message that carried its report.
        waiting: devices that are there, run the round's release, and have not answered.
        refused: device → why its report does not count.
        manifest: blob of what was distilled, and from what.
        rules: that the candidate was judged by.
        floor, raised: best accepted scores, and those once its own release is made: see `RoundRecord`.
    """

    number: int
    release: int
    proxy: BlobRef | None
    samples: int
    opened_s: float
    quorum: int = 1
    enough: int | None = None
    state: RoundState = RoundState.OPEN
    deadline_s: float = 0.0
    closed_s: float = 0.0
    reason: str = ""
    reports: int | None = None
    answered: dict[DeviceId, bytes] = field(default_factory=dict)
    waiting: set[DeviceId] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    manifest: BlobRef | None = None
    rules: JudgeRules | None = None
    floor: Floor | None = None
    raised: Floor | None = None

    @property
    def collecting(self) -> bool:
        """Whether reports are taken now."""
        return self.state is RoundState.COLLECTING

    @property
    def pending(self) -> bool:
        """Whether reports are taken or distilled now: what a newer release makes void."""
        return self.state in {RoundState.COLLECTING, RoundState.DISTILLING}

    @property
    def in_work(self) -> bool:
        """Whether its candidate is being made, judged or released now."""
        return self.state in {RoundState.DISTILLING, RoundState.JUDGING}

    @property
    def closed(self) -> bool:
        """Whether it is over."""
        return self.state in CLOSED

    def fire(self, event: RoundEvent, now: float, reason: str = "") -> None:
        """Take a step.

        Raises:
            IllegalTransitionError: the table has no such row.
        """
        taking = not self.closed and not self.in_work
        self.state = step(TABLE, self.state, event)
        if taking and not self.collecting:
            self.reports = len(self.answered)
        self.reason = reason[:MAX_REASON] or self.reason
        if self.closed:
            self.closed_s = now

    def released(self, counter: int, now: float) -> None:
        """Its release is the fleet's, and what the next candidates are compared with."""
        self.fire(RoundEvent.RELEASED, now)
        if self.raised:
            self.floor, self.raised = msgspec.structs.replace(self.raised, release=counter), None

    def verdict(self, now: float) -> RoundEvent | None:
        """Say whether a collecting round has enough, too few at its deadline, or (None) should go on."""
        answers = len(self.answered)
        plenty = self.enough is not None and answers >= self.enough
        if answers >= self.quorum and (plenty or not self.waiting or now >= self.deadline_s):
            return RoundEvent.ENOUGH
        return RoundEvent.TOO_FEW if now >= self.deadline_s else None

    def take(self, device: DeviceId, message_id: bytes) -> None:
        """Count an accepted report."""
        self.answered[device] = message_id
        self.waiting.discard(device)
        self.refused.pop(device, None)

    def heard(self, device: DeviceId) -> bool:
        """Whether a device has said what it has to say: a report taken, or one refused."""
        return device in self.answered or device in self.refused

    def refuse(self, device: DeviceId, reason: str) -> None:
        """Remember why a device's report does not count, and stop waiting for it."""
        if device not in self.answered:
            self.refused[device] = reason
            self.waiting.discard(device)

    def call(self, spec: TaskSpec, trunk: TrunkAsk | None = None) -> Call:
        """The round as devices are told of it, and what is asked of their trunks."""
        head, tail = (spec.name, spec.label_space, self.number, self.release), (self.deadline_s, self.collecting)
        return PrototypeCall(*head, *tail) if self.proxy is None else RoundCall(*head, self.proxy, *tail, trunk)

    def record(self, spec: TaskSpec) -> RoundRecord:
        """The round as it is written down."""
        return RoundRecord(
            task=spec.task_id,
            number=self.number,
            state=self.state.value,
            release=self.release,
            proxy=self.proxy,
            samples=self.samples,
            opened_s=self.opened_s,
            deadline_s=self.deadline_s,
            closed_s=self.closed_s,
            reason=self.reason,
            reports=self.reports,
            refused=dict(self.refused),
            manifest=self.manifest,
            rules=self.rules,
            floor=self.floor,
            raised=self.raised,
        )


def restored(record: RoundRecord, answered: dict[DeviceId, bytes], quorum: int, enough: int | None = None) -> Round:
    """Take a round back from disk, with the reports that were accepted."""
    return Round(
        number=record.number,
        release=record.release,
        proxy=record.proxy,
        samples=record.samples,
        opened_s=record.opened_s,
        quorum=quorum,
        enough=enough,
        state=RoundState(record.state),
        deadline_s=record.deadline_s,
        closed_s=record.closed_s,
        reason=record.reason,
        reports=record.reports,
        answered=answered,
        refused=dict(record.refused),
        manifest=record.manifest,
        rules=record.rules,
        floor=record.floor,
        raised=record.raised,
    )


def is_late(report: Report, current: Round) -> bool:
    """Whether a report answers no round that takes reports: at best it counts in later ones."""
    return report.round != current.number or not current.collecting


def refusal(report: Report, spec: TaskSpec, current: Round | None, device: DeviceId, kept: int = 0) -> str:
    """Say why a report does not count, in its round or with age in later ones; "" when it does.

    Args:
        report: of which no votes have been opened.
        spec: the task.
        current: its newest round.
        device: whose report it is.
        kept: round of the newest report of that device that counts; 0 for none.
    """
    if report.label_space != spec.label_space:
        return "wrong-label-space"
    if current is None or (is_late(report, current) and not _of_use(report, current, kept)):
        return ROUND_CLOSED
    if reason := _elsewhere(report, current):
        return reason
    if device in current.answered and not is_late(report, current):
        return "duplicate"
    if not isinstance(report, PrototypeReport):
        return _misfit(report.votes, spec, current.samples)
    return "" if max(report.classes.data, default=0) < spec.outputs else "wrong-outputs"


def _of_use(report: Report, current: Round, kept: int) -> bool:
    """Whether later rounds count a late report: of a round that was called, not too old, newer than what is kept.

    Class means are of a release, and late ones mostly of one that is gone.
    """
    newest = current.number - (current.state is RoundState.OPEN)
    return not isinstance(report, PrototypeReport) and max(kept, newest - REPORT_ROUNDS, 0) < report.round <= newest


def _elsewhere(report: Report, current: Round) -> str:
    """Say what else a report answers than this round, and from where."""
    proxy = current.proxy.sha256 if current.proxy else ""
    if isinstance(report, PrototypeReport) is bool(proxy):
        return "wrong-kind-of-report"
    if report.proxy not in (proxy, bytes.fromhex(proxy)[:PROXY_BYTES]):
        return "wrong-proxy"
    if report.release > current.release:
        return "unknown-release"
    return "other-release" if isinstance(report, PrototypeReport) and report.release < current.release else ""


def _misfit(votes: Votes | CodedVotes, spec: TaskSpec, samples: int) -> str:
    kind, answered, outputs = (
        (spec.kind, votes.samples, votes.outputs) if isinstance(votes, CodedVotes) else shape_of(votes)
    )
    if kind != spec.kind:
        return "wrong-kind-of-votes"
    if answered != samples:
        return "wrong-number-of-votes"
    return "" if outputs == spec.outputs else "wrong-outputs"
