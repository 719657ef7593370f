"""The device's brain: `handle(event, now)` returns effects; pure: owns no clock, file, thread, socket or model.

It joins a session (what the fleet sees), a deployment (`releasing`), the open round (`answering`) and refits between
rounds (`refitting`). The shell (`agent`) carries effects out and feeds their outcome back as events.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from typing_extensions import assert_never

from edge_client import measuring
from edge_client.answering import Answering, Phase
from edge_client.effects import (
    Checked,
    CheckFailed,
    Delivered,
    Drifted,
    Effect,
    Event,
    Failed,
    Fetched,
    FetchFailed,
    FetchHeld,
    Forget,
    Linked,
    Passed,
    PatchFailed,
    Remember,
    ReportState,
    Stopping,
    Trained,
    TrainFailed,
    Unlinked,
)
from edge_client.offers import Installed, InstallFailed, Offered, Running, Unproven
from edge_client.plan_effects import Planned
from edge_client.refitting import Refitting
from edge_client.releasing import Releasing
from edge_client.session import ONLINE, SESSION, Session, SessionEvent
from edge_protocol import messages as m
from edge_protocol.effects import Drop, Send
from edge_protocol.fsm import step
from edge_protocol.ids import DeviceId, FleetId
from edge_protocol.task import TaskSpec, Tier


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Who the device is; does not change while it runs.

    Attributes:
        fleet, device: its names in topics.
        tier: which student fits it.
        variants: of that student's artifacts which it takes before the plain one.
        spec: its task.
        report_interval_s: seconds between two reports of its state.
        board, software, runtime: for people.
        cores, memory_bytes: of the board.
        prototypes: its installer lets it tell class means.
    """

    fleet: FleetId
    device: DeviceId
    tier: Tier
    spec: TaskSpec
    report_interval_s: float
    board: str = ""
    software: str = ""
    runtime: str = ""
    cores: int = 0
    memory_bytes: int = 0
    variants: tuple[str, ...] = ()
    prototypes: bool = False


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """What the disk remembers of the last boot.

    Attributes:
        running: what is installed.
        answered: number of the last round that was answered.
        spent: the privacy budget allows no further report.
        attempts: release → loads of it that had no outcome.
    """

    running: Running = Running()
    answered: int = 0
    spent: bool = False
    attempts: Mapping[int, int] = msgspec.field(default_factory=dict)


class DeviceCore:
    """Decides everything that a device does towards its fleet.

    Args:
        profile: who the device is.
        remembered: what the disk says.
        now: seconds, of any clock that never goes back.
    """

    def __init__(self, profile: Profile, remembered: Remembered, now: float) -> None:
        self.session = step(SESSION, Session.OFFLINE, SessionEvent.START)
        self._profile = profile
        self._releasing = Releasing(
            fleet=profile.fleet,
            device=profile.device,
            spec=profile.spec,
            tier=profile.tier,
            running=remembered.running,
            attempts=remembered.attempts,
            variants=profile.variants,
        )
        self._answering = Answering(
            device=profile.device,
            spec=profile.spec,
            answered=remembered.answered,
            spent=remembered.spent,
            prototypes=profile.prototypes,
        )
        self._refitting = Refitting(profile.device)
        self._jobs = 0
        self._report_at = now

    @property
    def running(self) -> Running:
        """What answers frames."""
        return self._releasing.running

    @property
    def stage(self) -> str:
        """Where the newest release stands."""
        return self._releasing.stage.value

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event at `now` (s); return what is to be done, in order."""
        before = self.session
        first, then = self._dispatch(event, now), self._advance(now)
        self._follow()
        if self.session is not before and self.session in ONLINE:
            return [*then, *first, self._report(now)]
        return [*then, *first]

    def tick(self, now: float) -> list[Effect]:
        """Do what is due at `now` (s)."""
        retried = self._releasing.tick(now)
        advanced = self._advance(now)
        self._follow()
        due = [self._report(now)] if now >= self._report_at and self.session in ONLINE else []
        return [*advanced, *retried, *due]

    def next_deadline(self) -> float:
        """Time at which `tick` is due next (s)."""
        parts = (self._releasing, self._answering, self._refitting)
        return min([self._report_at, *(at for part in parts if (at := part.next_deadline()) is not None)])

    def _dispatch(self, event: Event, now: float) -> list[Effect]:  # noqa: C901, PLR0911, PLR0912 - one case per event
        match event:
            case m.Envelope():
                return self._receive(event.header, event.body)
            case Linked():
                return self._link()
            case Unlinked():
                self._lose(SessionEvent.LOSE)
                return []
            case Fetched() | FetchFailed():
                return self._fetched(event, now)
            case FetchHeld():
                return self._releasing.held(event.reason)
            case PatchFailed():
                return self._releasing.patch_failed(event)
            case Checked() | CheckFailed():
                return self._releasing.checked(event, self._next_job(), now)
            case Trained() | TrainFailed():
                return self._trained(event, now)
            case Planned():
                return self._releasing.planned(event)
            case Passed() | Failed():
                return self._releasing.probed(event)
            case Installed() | InstallFailed():
                return self._releasing.installed(event, now)
            case Delivered():
                self._answering.delivered(event.round)
                return []
            case Drifted():
                self._refitting.want()
                return []
            case Offered():
                return self._releasing.offer(event)
            case Unproven():
                return self._releasing.unproven(event)
            case Stopping():
                self._lose(SessionEvent.STOP)
                return [Send(m.Presence(online=False), retain=True)]
            case _:
                assert_never(event)

    def _receive(self, header: m.Header, body: m.Body) -> list[Effect]:  # noqa: PLR0911 - one return per message
        match body:
            case m.Ack():
                return [Forget(body.message_id, body.accepted, body.reason)]
            case m.Rebirth():
                return self._introduce()
            case m.Label():
                if body.task == self._profile.spec.name:
                    return [Remember(body)]
                return [Drop("wrong-task", f"a label for task {body.task!r} came to {self._profile.spec.name!r}")]
            case m.Measure():
                return measuring.asked(header, body, self._profile.spec)
            case m.RoundCall() | m.PrototypeCall():
                return self._answering.called(body)
            case (
                m.Birth()
                | m.DeviceState()
                | m.KnowledgeReport()
                | m.CodedReport()
                | m.PrototypeReport()
                | m.Telemetry()
                | m.Deployment()
                | m.Need()
                | m.IntervalResult()
                | m.ReleaseOffer()
                | m.Measured()
                | m.Presence()
            ):
                return [Drop("wrong-direction", f"a device's brain was sent a {type(body).__name__}")]
            case _:
                assert_never(body)

    def _link(self) -> list[Effect]:
        if self.session is not Session.CONNECTING:
            self._lose(SessionEvent.LOSE)
        self.session = step(SESSION, self.session, SessionEvent.LINK)
        return [*self._introduce(), Send(m.Presence(online=True), retain=True)]

    def _lose(self, event: SessionEvent) -> None:
        if self.session in ONLINE or event is SessionEvent.STOP:
            self.session = step(SESSION, self.session, event)

    def _introduce(self) -> list[Effect]:
        who, spec = self._profile, self._profile.spec
        task = m.RunningTask(spec.name, spec.label_space, who.tier, spec.students[who.tier], self.running.release)
        birth = m.Birth(who.board, who.software, who.runtime, who.cores, who.memory_bytes, (task,))
        return [Send(birth), self._releasing.status()]

    def _fetched(self, event: Fetched | FetchFailed, now: float) -> list[Effect]:
        blocked, settled, release = self._releasing.wants_trainer, self._releasing.settled, self.running.release
        job = self._next_job()
        asked = self._answering.fetched(event, release=release, settled=settled, blocked=blocked, job=job, now=now)
        return [*asked, *self._releasing.fetched(event, now)]

    def _trained(self, event: Trained | TrainFailed, now: float) -> list[Effect]:
        """Whose job it was: a deployment's that failed is made up for later, any head that was fitted is a refit."""
        if event.job == self._releasing.job and isinstance(event, TrainFailed):
            self._refitting.missed(now)
        elif event.job != self._refitting.job and isinstance(event, Trained):
            self._refitting.adopted()
        asked = [*self._releasing.trained(event), *self._answering.trained(event, now)]
        return [*asked, *self._refitting.trained(event, now)]

    def _advance(self, now: float) -> list[Effect]:
        """Let the round go on, or make way for a deployment; refit when nobody else trains."""
        releasing, answering, release = self._releasing, self._answering, self.running.release
        settled, blocked, job = releasing.settled, releasing.wants_trainer, self._jobs + 1
        asked = answering.advance(release=release, settled=settled, blocked=blocked, job=job, now=now)
        self._jobs = max(self._jobs, answering.job or 0)
        free = settled and answering.phase not in {Phase.FETCHING, Phase.TRAINING}
        refit = self._refitting.advance(release=release, free=free, job=self._jobs + 1, now=now)
        self._jobs = max(self._jobs, self._refitting.job or 0)
        return [*asked, *refit]

    def _follow(self) -> None:
        """Show in the session what the round does, when there is a link to show it on."""
        training, rest = (Session.SPENT, Session.SPENT) if self._answering.spent else (Session.TRAINING, Session.IDLE)
        shown = {Phase.TRAINING: training, Phase.REPORTING: Session.REPORTING}
        wanted = shown.get(self._answering.phase, rest)
        leads = {
            Session.TRAINING: SessionEvent.TRAIN,
            Session.REPORTING: SessionEvent.REPORT,
            Session.IDLE: SessionEvent.REST,
            Session.SPENT: SessionEvent.SPEND,
        }
        if self.session in ONLINE and self.session is not wanted:
            self.session = step(SESSION, self.session, leads[wanted])

    def _report(self, now: float) -> ReportState:
        self._report_at = now + self._profile.report_interval_s
        return ReportState(self.session.value, self.running.release)

    def _next_job(self) -> int:
        self._jobs += 1
        return self._jobs
