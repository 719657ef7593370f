"""The half of the brain that brings a device to the desired release; pure: owns how far it is, no file, no clock.

The desired release is state, not a command: it may come twice, late, out of order or not at all, on the fleet's topic
or on the device's own, and the device still ends at the newest one that it can run. It never goes to a lower counter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from edge_client.backoff import Backoff
from edge_client.deployment import BUSY, DEPLOYMENT, ENDED, Stage, Step
from edge_client.effects import (
    Abandon,
    Check,
    Checked,
    CheckFailed,
    Discard,
    Effect,
    Failed,
    Fetch,
    Fetched,
    FetchFailed,
    Install,
    Passed,
    Patch,
    PatchFailed,
    Probe,
    Stop,
    Train,
    Trained,
    TrainFailed,
)
from edge_client.offers import Installed, InstallFailed, Offer, Offered, Running, Unproven, judge
from edge_client.plan_effects import BuildPlan, Exchange, Planned
from edge_protocol.blobs import BlobRef
from edge_protocol.effects import Drop, Send
from edge_protocol.errors import IncompatibleError
from edge_protocol.fsm import step
from edge_protocol.messages import Deployment
from edge_protocol.task import TaskSpec, Tier

MAX_REASON = 500


class Releasing:
    """Deployment of releases of one task on one device.

    Args:
        fleet: the device's fleet.
        device: the device's name, for the spread of retries.
        spec: the task.
        tier: the device's tier.
        variants: of artifacts that it takes before the plain one.
        running: what the disk says is installed.
        attempts: release → loads of it that were never followed by an outcome.
    """

    def __init__(
        self,
        *,
        fleet: str,
        device: str,
        spec: TaskSpec,
        tier: Tier,
        running: Running,
        attempts: Mapping[int, int],
        variants: Sequence[str] = (),
    ) -> None:
        self.running = running
        self.stage = Stage.COMMITTED if running.release else Stage.IDLE
        self.job: int | None = None
        self._fleet, self._spec, self._tier, self._variants = fleet, spec, tier, tuple(variants)
        self._attempts = dict(attempts)
        self._offer: Offer | None = None
        self._refused = b""
        self._lacking: set[str] = set()
        self._delta: BlobRef | None = None
        self._retry = Backoff(device)
        self._shown = running.release
        self._reason = self._note = self._next_note = ""

    @property
    def target(self) -> int:
        """Counter of the release under way, or of the running one: one that was rolled back bars no older one."""
        return self._offer.counter if self._offer and self.stage is not Stage.ROLLED_BACK else self.running.release

    @property
    def settled(self) -> bool:
        """Whether nothing is under way."""
        return self.stage not in BUSY

    @property
    def wants_trainer(self) -> bool:
        """Whether the one training subprocess is this deployment's now."""
        return self.stage in {Stage.BUILDING, Stage.PROBATION}

    def status(self) -> Send:
        """Where the deployment stands."""
        message = Deployment(
            self._spec.name,
            self._shown,
            self.stage.value,
            self.running.release,
            self.running.weights,
            (self._reason or (self._note if self.stage is Stage.COMMITTED else ""))[:MAX_REASON],
        )
        return Send(message, durable=True)

    def offer(self, offered: Offered) -> list[Effect]:
        """Take the desired release, as often as it comes."""
        manifest = offered.manifest
        if offered.data == self._refused or (self._offer is not None and offered.data == self._offer.offered.data):
            return []
        try:
            plain = judge(manifest, self._fleet, self._spec, self._tier, self._attempts)
        except IncompatibleError as error:
            self._refused = offered.data
            return self._refuse(manifest.counter, str(error))
        if manifest.counter == self.running.release and manifest.artifact_of(self._tier, self.running.weights):
            return self._keep()
        if manifest.counter <= self.target:
            reason = f"release {manifest.counter} is not newer than {self.target}; a device never goes back"
            return [Drop("old-release", reason)]
        begun, superseded = self._clear()
        if self._offer is not None and self.stage is Stage.ROLLED_BACK:
            self._refused = self._offer.offered.data
        chosen = manifest.artifact_for(self._tier, self._variants)
        self._offer = Offer(manifest.counter, offered, chosen, plain)
        self._shown = manifest.counter
        return [*begun, *self._step(Step.OFFER), *self._step(Step.ACCEPT), *self._fetch(), *superseded]

    def unproven(self, event: Unproven) -> list[Effect]:
        """Say that a release was offered which nothing proves; it is taken when something does."""
        return self._refuse(0, event.reason)

    def _keep(self) -> list[Effect]:
        """The desired release is the one that runs. A newer one that ended stays refused, one to be retried goes on."""
        if self.stage not in ENDED or self._retry.at is not None:
            return []
        if self._offer is not None:
            self._refused = self._offer.offered.data
        self._offer, self._shown, self._reason = None, self.running.release, ""
        return [*self._step(Step.OFFER), *self._step(Step.KEEP)]

    def _refuse(self, counter: int, reason: str) -> list[Effect]:
        """A refused release leaves the running one, and a deployment that is under way, as they are."""
        refusal: list[Effect] = [Drop("release-rejected", reason)]
        if self.settled:
            self._offer, self._shown, self._reason = None, counter, reason
            self._retry.reset()
            refusal += [*self._step(Step.OFFER), *self._step(Step.REFUSE)]
        return refusal

    def fetched(self, event: Fetched | FetchFailed, now: float) -> list[Effect]:
        """A file arrived, or could not be had."""
        if self.stage is not Stage.FETCHING or event.sha256 not in self._lacking or self._offer is None:
            return []
        if isinstance(event, FetchFailed):
            self._reason = event.reason
            self._retry.fail(now)
            return self._step(Step.PAUSE if event.disk else Step.FAIL)
        self._lacking.discard(event.sha256)
        if self._delta is not None and event.sha256 == self._delta.sha256:
            weights = self._offer.artifact.weights
            self._lacking.add(weights.sha256)
            return [Patch(self.running.weights, event.sha256, weights)]
        if self._lacking:
            return []
        return [*self._step(Step.FETCHED), Check(self._offer.counter, self._offer.artifact)]

    def held(self, reason: str) -> list[Effect]:
        """The policy keeps the files waiting, or does not any more; operators see why."""
        if self.stage is not Stage.FETCHING or reason == self._reason:
            return []
        self._reason = reason
        return [self.status()]

    def patch_failed(self, event: PatchFailed) -> list[Effect]:
        """The delta leads nowhere: the whole payload is fetched instead, once."""
        if self.stage is not Stage.FETCHING or self._offer is None or event.sha256 not in self._lacking:
            return []
        self._delta = None
        return [Drop("delta-failed", event.reason), Fetch(self._offer.artifact.weights)]

    def checked(self, event: Checked | CheckFailed, job: int, now: float) -> list[Effect]:
        """The candidate was loaded, or cannot be: its bytes are what was signed, so trying again is in vain."""
        if self.stage is not Stage.STAGED or self._offer is None or event.release != self._offer.counter:
            return []
        if isinstance(event, CheckFailed) and event.disk:
            return self._pause(event, now)
        if isinstance(event, CheckFailed):
            return self._roll_back(event)
        self.job = job
        return [*self._step(Step.BUILD), Train(job, self._offer.counter, self._offer.artifact, None)]

    def trained(self, event: Trained | TrainFailed) -> list[Effect]:
        """The personal head was refitted on the new trunk, or stays the shared one: a failed refit blocks nothing."""
        if self.stage is not Stage.BUILDING or event.job != self.job or self._offer is None:
            return []
        self.job = None
        missed = [Drop("refit-failed", event.reason)] if isinstance(event, TrainFailed) else []
        return [*missed, BuildPlan(self._offer.counter)]

    def planned(self, event: Planned) -> list[Effect]:
        """A release is in TensorRT, or is to do without, which is told and blocks nothing."""
        missed: list[Effect] = [Drop("plan-failed", event.note)] if event.note else []
        if self._offer is not None and self._offer.counter == event.release and self.wants_trainer:
            self._next_note = event.note
            built = self.stage is Stage.BUILDING and self.job is None
            return [*missed, *self._step(Step.BUILT), Probe(event.release)] if built else missed
        if event.release != self.running.release:
            return []
        self._note = event.note
        told = [self.status()] if self.stage is Stage.COMMITTED else []
        return [*missed, *told] if event.note else [Exchange(event.release), *told]

    def probed(self, event: Passed | Failed) -> list[Effect]:
        """The candidate stood its probation, or did not."""
        if self.stage is not Stage.PROBATION or self._offer is None or event.release != self._offer.counter:
            return []
        if isinstance(event, Failed):
            return self._roll_back(event)
        offered = self._offer.offered
        return [Install(event.release, offered.data, offered.proof)]

    def installed(self, event: Installed | InstallFailed, now: float) -> list[Effect]:
        """The disk holds the pointer: only now is the release called committed. Or it refused: that is tried again."""
        if self.stage is not Stage.PROBATION or self._offer is None or event.release != self._offer.counter:
            return []
        if isinstance(event, InstallFailed):
            return self._pause(event, now)
        self.running = Running(event.release, self._offer.artifact.weights.sha256)
        self._delta, self._note = None, self._next_note
        return self._step(Step.PASS)

    def _roll_back(self, event: CheckFailed | Failed) -> list[Effect]:
        """The release itself is at fault: its files go, for good; a variant gives way to the plain artifact."""
        assert self._offer is not None
        gone: list[Effect] = [*(Abandon(ref.sha256) for ref in self._offer.files(self._delta)), Discard(event.release)]
        if variant := self._offer.artifact.variant:
            self._offer = msgspec.structs.replace(self._offer, artifact=self._offer.plain)
            gone.insert(0, Drop("variant-failed", f"{variant}: {event.reason}"))
            return [*gone, *self._step(Step.FALL_BACK), *self._fetch()]
        self._reason = event.reason
        return [*self._step(Step.FAIL), *gone]

    def _pause(self, event: CheckFailed | InstallFailed, now: float) -> list[Effect]:
        """Wait for the disk; what was fetched is kept, so that nothing is fetched again."""
        self._reason = event.reason
        self._retry.fail(now)
        return [*self._step(Step.PAUSE), Discard(event.release, keep_files=True)]

    def tick(self, now: float) -> list[Effect]:
        """Try again what failed for want of a link or of room."""
        if self.stage in {Stage.FAILED, Stage.PAUSED} and self._retry.due(now):
            return [*self._step(Step.RETRY), *self._fetch(whole=True)]
        return []

    def next_deadline(self) -> float | None:
        """Time of the next attempt (s)."""
        return self._retry.at

    def _fetch(self, *, whole: bool = False) -> list[Effect]:
        """Get the files; the weights by a delta from the running ones where the release has one."""
        assert self._offer is not None
        self._reason, files = "", self._offer.artifact
        self._delta = None if whole else files.delta_from(self.running.weights)
        refs = {ref.sha256: ref for ref in (files.template, self._delta or files.weights, files.golden)}
        self._lacking = set(refs)
        return [Fetch(ref) for ref in refs.values()]

    def _clear(self) -> tuple[list[Effect], list[Effect]]:
        """Let go of whatever is under way: at once, and when the next release has said which files it shares."""
        gone: list[Effect] = []
        if self._offer is not None and self.stage in {*BUSY, Stage.FAILED}:
            gone += [Abandon(ref.sha256) for ref in self._offer.files(self._delta)]
        if self.job is not None:
            gone.append(Stop(self.job))
        superseded: list[Effect] = []
        if gone or self._offer is None:  # what an earlier boot has left of another release is of no use either
            superseded.append(Discard(self._offer.counter if self._offer is not None else 0))
        self._lacking, self.job, self._reason = set(), None, ""
        self._retry.reset()
        return gone, superseded

    def _step(self, event: Step) -> list[Effect]:
        self.stage = step(DEPLOYMENT, self.stage, event)
        return [self.status()]
