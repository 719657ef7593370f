"""Training jobs from the brain's request to heads and reports; owns which head came from which job, and no process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_client.account import Account
from edge_client.config import DeviceConfig
from edge_client.costs import Cost
from edge_client.disk import write_atomic
from edge_client.effects import Train, Trained, TrainFailed
from edge_client.installed import HeadChoice
from edge_client.jobs import TrainJob, TrainResult
from edge_client.knowledge import read_prototypes, read_report
from edge_client.last_votes import VOTES_FILE, LastVotes
from edge_client.training import Finished, Training
from edge_models.head_weights import HeadWeights
from edge_protocol.errors import RoadcastError, StoreError
from edge_protocol.manifest import Artifact
from edge_protocol.messages import Call, FullReport, PrototypeCall, RoundCall
from edge_protocol.task import TaskSpec
from edge_protocol.trunks import TrunkAsk

LOG = logging.getLogger(__name__)
LESSON = "lesson.json"
"""The last result, in the state directory."""


@dataclass(frozen=True, eq=False, slots=True)
class Fitted:
    """A head that a job fitted on a release's trunk."""

    release: int
    head: HeadWeights
    choice: HeadChoice


class Lessons:
    """Starts jobs and reads what came of them; used by one thread only.

    Args:
        config: the device's.
        spec: the task.
        training: runs the subprocess.
        blob: where a blob is.
        running: files of the release that answers frames.
        account: of what reports may tell.

    Attributes:
        cost: of the last job that ended well, since the start.
    """

    def __init__(
        self,
        config: DeviceConfig,
        spec: TaskSpec,
        training: Training,
        blob: Callable[[str], Path],
        running: Callable[[], Artifact | None],
        account: Account,
    ) -> None:
        self._config, self._spec, self._training = config, spec, training
        self._blob, self._running = blob, running
        self._account, self._silent = account, False
        self._asked: Train | None = None
        self._fitted: dict[int, Fitted] = {}
        self.cost: Cost | None = None

    @property
    def busy(self) -> bool:
        """Whether a job is running."""
        return self._training.busy

    @property
    def pauses(self) -> int:
        """Times that a job was held because the board was hot or busy, since the start."""
        return self._training.governor.pauses

    def start(self, asked: Train, now: float) -> list[TrainFailed]:
        """Start a job; fails at once when there is nothing to train on or no process to be had."""
        artifact = asked.artifact or self._running()
        if artifact is None:
            return [TrainFailed(asked.job, "there is no release to train on")]
        train = self._config.train
        self._silent, call = self._account.exhausted, asked.call
        job = TrainJob(
            spec=self._spec,
            preprocess=self._config.preprocess,
            template=str(self._blob(artifact.template.sha256).resolve()),
            weights=str(self._blob(artifact.weights.sha256).resolve()),
            replay=str((Path(self._config.state_dir) / "replay.db").resolve()),
            proxy=str(self._blob(call.proxy.sha256).resolve())
            if isinstance(call, RoundCall) and not self._silent
            else None,
            epochs=train.epochs,
            max_samples=train.max_samples,
            heads=self._config.personal.heads,
            watts=train.watts,
            nice=train.nice,
            memory_mb=train.memory_mb,
            seed=call.number if call else 0,
            sigma=self._account.sigma,
            prototype_k=self._config.privacy.prototype_k if isinstance(call, PrototypeCall) else None,
            tier=artifact.tier,
            trunk=self._trunk(asked),
        )
        self._asked = asked
        failed = self._training.start(asked.job, job, now)
        return [] if failed is None else [TrainFailed(asked.job, failed.reason)]

    def _trunk(self, asked: Train) -> TrunkAsk | None:
        """What of the round's wish this device grants: at most its own steps, nothing on another release's trunk."""
        call, most = asked.call, self._config.train.trunk_steps
        if not isinstance(call, RoundCall) or call.trunk is None or asked.release != call.release:
            return None
        return msgspec.structs.replace(call.trunk, steps=min(call.trunk.steps, most)) if most else None

    def stop(self, job: int) -> None:
        """End a job, if it is the one that runs."""
        self._training.stop(job)

    def poll(self, now: float) -> list[Trained | TrainFailed]:
        """Say when the job has ended."""
        finished = self._training.poll(now)
        if finished is None:
            return []
        try:
            return [self._read(finished)]
        finally:
            self._training.discard(finished.folder)

    def refitted(self, release: int) -> Fitted | None:
        """The newest head that was fitted on a release's trunk; older ones are forgotten."""
        found = [fitted for _, fitted in sorted(self._fitted.items()) if fitted.release == release]
        self._fitted.clear()
        return found[-1] if found else None

    def close(self) -> None:
        """End whatever runs."""
        self._training.stop()

    def _read(self, finished: Finished) -> Trained | TrainFailed:
        asked, result = self._asked, finished.result
        if result is None or asked is None:
            return TrainFailed(finished.job, finished.reason)
        try:
            head = HeadWeights.from_bytes((finished.folder / "personal.safetensors").read_bytes()).fitting(self._spec)
            report = None
            if asked.call is not None and not self._silent:
                report = self._report(finished.folder, result, asked.call, asked.release)
                self._account.spend()
        except (RoadcastError, OSError) as error:
            return TrainFailed(finished.job, str(error))
        self.cost = result.cost
        if result.no_trunk:
            LOG.warning("round %d: the trunk is not shared: %s", report.round if report else 0, result.no_trunk)
        if result.left_out:
            LOG.warning("training left out %d samples of which the trunk makes no finite features", result.left_out)
        with suppress(StoreError):  # it is for people to read; a full disk costs no lesson
            write_atomic(Path(self._config.state_dir) / LESSON, msgspec.json.encode(result))
        self._fitted[finished.job] = Fitted(asked.release, head, result.choice)
        return Trained(finished.job, report, self._account.exhausted)

    def _report(self, folder: Path, result: TrainResult, call: Call, release: int) -> FullReport:
        """What answers a round, out of a job's files."""
        if isinstance(call, PrototypeCall):
            return read_prototypes(folder, spec=self._spec, tier=self._config.tier, call=call, release=release)
        told = LastVotes(Path(self._config.state_dir) / VOTES_FILE)
        before = told.before(call.label_space, call.proxy.sha256)
        return read_report(folder, result, spec=self._spec, call=call, release=release, before=before)
