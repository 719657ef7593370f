"""The half of the brain that brings a device to the desired release; pure: owns how far it is, no file, no clock.

The desired release is state, not a command: it may come twice, late, out of order or not at all, on the fleet's topic
or on the device's own, and the device still ends at the newest one that it can run. It never goes to a lower counter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
from edge_protocol.blobs import BlobRef
from edge_protocol.effects import Drop, Send
from edge_protocol.errors import IncompatibleError, RemoteProtocolError, SignatureError
from edge_protocol.fsm import step
from edge_protocol.manifest import Artifact, ReleaseManifest
from edge_protocol.messages import Deployment, SignedManifest
from edge_protocol.signing import Keyring
from edge_protocol.task import TaskSpec, Tier

MAX_REASON = 500
MAX_ATTEMPTS = 3
"""Starts of a candidate that may end in a crash of the agent before the release is refused for good."""


@dataclass(frozen=True, slots=True)
class Running:
    """What answers frames: release counter (0: none) and hash of the weights payload."""

    release: int = 0
    weights: str = ""


@dataclass(frozen=True, slots=True)
class Offer:
    """A release that passed every check that needs no file."""

    counter: int
    signed: SignedManifest
    artifact: Artifact


class Releasing:
    """Deployment of releases of one task on one device.

    Args:
        fleet: the device's fleet.
        device: the device's name, for the spread of retries.
        spec: the task.
        tier: the device's tier.
        keyring: the keys it trusts.
        running: what the disk says is installed.
        attempts: release → starts of it as a candidate that were never followed by an outcome.
    """

    def __init__(
        self,
        *,
        fleet: str,
        device: str,
        spec: TaskSpec,
        tier: Tier,
        keyring: Keyring,
        running: Running,
        attempts: Mapping[int, int],
    ) -> None:
        self.running = running
        self.stage = Stage.COMMITTED if running.release else Stage.IDLE
        self.job: int | None = None
        self._fleet, self._spec, self._tier, self._keyring = fleet, spec, tier, keyring
        self._attempts = dict(attempts)
        self._offer: Offer | None = None
        self._refused: SignedManifest | None = None
        self._lacking: set[str] = set()
        self._delta: BlobRef | None = None
        self._retry = Backoff(device)
        self._shown = running.release
        self._reason = ""

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
            self._reason[:MAX_REASON],
        )
        return Send(message, durable=True)

    def offer(self, signed: SignedManifest) -> list[Effect]:
        """Take the desired release, as often as it comes."""
        if signed == self._refused or (self._offer is not None and signed == self._offer.signed):
            return []
        try:
            manifest = self._keyring.open(signed)
        except (SignatureError, RemoteProtocolError) as error:
            return self._refuse(signed, 0, str(error))
        try:
            artifact = self._judge(manifest)
        except IncompatibleError as error:
            return self._refuse(signed, manifest.counter, str(error))
        if manifest.counter == self.running.release and artifact.weights.sha256 == self.running.weights:
            return self._keep()
        if manifest.counter <= self.target:
            return [
                Drop(
                    "old-release",
                    f"release {manifest.counter} is not newer than {self.target}; a device never goes back",
                )
            ]
        begun = self._clear()
        if self._offer is not None and self.stage is Stage.ROLLED_BACK:
            self._refused = self._offer.signed
        self._offer = Offer(manifest.counter, signed, artifact)
        self._shown = manifest.counter
        return [*begun, *self._step(Step.OFFER), *self._step(Step.ACCEPT), *self._fetch()]

    def _judge(self, manifest: ReleaseManifest) -> Artifact:
        """Return the files for this device."""
        ours, theirs = self._spec, manifest.task
        if manifest.fleet != self._fleet:
            raise IncompatibleError(f"release {manifest.counter} is of fleet {manifest.fleet!r}, not {self._fleet!r}")
        if theirs.name != ours.name or theirs.label_space != ours.label_space:
            raise IncompatibleError(
                f"release {manifest.counter} is of task {theirs.name!r} with label space {theirs.label_space}, "
                f"this device does {ours.name!r} with {ours.label_space}"
            )
        if self._attempts.get(manifest.counter, 0) >= MAX_ATTEMPTS:
            raise IncompatibleError(
                f"release {manifest.counter} took the agent down {MAX_ATTEMPTS} times; it is left alone"
            )
        return manifest.artifact_for(self._tier)

    def _keep(self) -> list[Effect]:
        """The desired release is the one that runs. A newer one that ended stays refused, one to be retried goes on."""
        if self.stage not in ENDED or self._retry.at is not None:
            return []
        if self._offer is not None:
            self._refused = self._offer.signed
        self._offer, self._shown, self._reason = None, self.running.release, ""
        return [*self._step(Step.OFFER), *self._step(Step.KEEP)]

    def _refuse(self, signed: SignedManifest, counter: int, reason: str) -> list[Effect]:
        """A refused release leaves the running one, and a deployment that is under way, as they are."""
        self._refused = signed
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

    def checked(self, event: Checked | CheckFailed, job: int) -> list[Effect]:
        """The candidate was loaded, or cannot be: its bytes are what was signed, so trying again is in vain."""
        if self.stage is not Stage.STAGED or self._offer is None or event.release != self._offer.counter:
            return []
        if isinstance(event, CheckFailed):
            self._reason = event.reason
            return [*self._step(Step.FAIL), Discard(event.release)]
        self.job = job
        return [*self._step(Step.BUILD), Train(job, self._offer.counter, self._offer.artifact, None)]

    def trained(self, event: Trained | TrainFailed) -> list[Effect]:
        """The personal head was refitted on the new trunk, or stays the shared one: a failed refit blocks nothing."""
        if self.stage is not Stage.BUILDING or event.job != self.job or self._offer is None:
            return []
        self.job = None
        missed = [Drop("refit-failed", event.reason)] if isinstance(event, TrainFailed) else []
        return [*missed, *self._step(Step.BUILT), Probe(self._offer.counter)]

    def probed(self, event: Passed | Failed) -> list[Effect]:
        """The candidate stood its probation, or did not."""
        if self.stage is not Stage.PROBATION or self._offer is None or event.release != self._offer.counter:
            return []
        if isinstance(event, Failed):
            self._reason = event.reason
            return [*self._step(Step.FAIL), Discard(event.release)]
        self.running = Running(event.release, self._offer.artifact.weights.sha256)
        self._delta = None
        return [Install(event.release, self._offer.signed), *self._step(Step.PASS)]

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
        self._reason = ""
        files = self._offer.artifact
        self._delta = None if whole else files.delta_from(self.running.weights)
        refs = {ref.sha256: ref for ref in (files.template, self._delta or files.weights, files.golden)}
        self._lacking = set(refs)
        return [Fetch(ref) for ref in refs.values()]

    def _clear(self) -> list[Effect]:
        """Let go of whatever is under way."""
        gone: list[Effect] = [Abandon(sha256) for sha256 in sorted(self._lacking)]
        if self.job is not None:
            gone.append(Stop(self.job))
        if self._offer is not None and self.stage in {Stage.STAGED, Stage.BUILDING, Stage.PROBATION}:
            gone.append(Discard(self._offer.counter))
        self._lacking, self.job, self._reason = set(), None, ""
        self._retry.reset()
        return gone

    def _step(self, event: Step) -> list[Effect]:
        self.stage = step(DEPLOYMENT, self.stage, event)
        return [self.status()]
