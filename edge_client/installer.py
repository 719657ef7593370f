"""Loads candidates and puts them on probation, in a thread of its own, while the running bundle serves on.

Owns the candidate's runner until it is installed; owns no pointer and no table.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load

from devices.runners.base import Runner
from devices.runners.ort_runner import OrtRunner
from edge_client.config import ProbationConfig
from edge_client.costs import resident_mb
from edge_client.effects import Check, Checked, CheckFailed, Failed, Passed, Probe
from edge_client.inference import Counters
from edge_client.pipelines import Bundle
from edge_client.probation import Flow, try_candidate
from edge_client.seen import Seen
from edge_models.samples import F4
from edge_protocol.errors import DeploymentError, RoadcastError
from edge_protocol.manifest import Artifact
from edge_protocol.task import TaskSpec
from export.golden import check_golden

LOG = logging.getLogger(__name__)
Prepare = Callable[[npt.NDArray[Any]], F4]
"""Stored samples (N, *raw_shape) to what the student takes (N, *shape) float32."""
_POLL_S = 0.05


@dataclass(frozen=True, eq=False, slots=True)
class Candidate:
    """A loaded release.

    Attributes:
        release: its counter.
        artifact: its files.
        runner: its student, whose golden answers are right.
        golden: inputs of the golden answers, (N, *shape) float32.
    """

    release: int
    artifact: Artifact
    runner: Runner
    golden: F4


def load_release(release: int, artifact: Artifact, blob: Callable[[str], Path], threads: int) -> Candidate:
    """Load a release from its files and check its golden answers.

    Raises:
        RoadcastError: a file is of another student, or the student fails, or answers otherwise than it must.
        OSError: a file is missing.
    """
    template, weights, golden = (
        blob(ref.sha256).read_bytes() for ref in (artifact.template, artifact.weights, artifact.golden)
    )
    runner = OrtRunner(template, weights, threads=threads)
    try:
        check_golden(runner, golden)
    except RoadcastError:
        runner.close()
        raise
    except Exception as error:  # a runtime's own errors share no base class
        runner.close()
        raise DeploymentError(f"release {release} fails on its golden inputs: {error!r}") from error
    return Candidate(release, artifact, runner, load(golden)["inputs"].astype(np.float32))


class Installer:
    """Answers `Check` and `Probe`, one at a time.

    Args:
        spec: the task.
        config: what a candidate must stand.
        threads: that one inference may use.
        blob: where a blob is.
        seen: live samples.
        stored: samples of the replay store, for when too few live ones come.
        prepare: from stored sample to input.
        running: what serves now.
        frames: what the inference loop counts.
        answer: takes the outcome.
        memory_mb: what this process holds in memory now.
    """

    def __init__(
        self,
        *,
        spec: TaskSpec,
        config: ProbationConfig,
        threads: int,
        blob: Callable[[str], Path],
        seen: Seen,
        stored: Callable[[int], npt.NDArray[np.generic]],
        prepare: Prepare,
        running: Callable[[], Bundle | None],
        frames: Counters,
        answer: Callable[[object], None],
        memory_mb: Callable[[], float] = resident_mb,
    ) -> None:
        self._spec, self._config, self._threads, self._blob = spec, config, threads, blob
        self._seen, self._stored, self._prepare = seen, stored, prepare
        self._running, self._frames, self._tell = running, frames, answer
        self._memory_mb, self._before_mb = memory_mb, 0.0
        self._asked: SimpleQueue[Check | Probe | None] = SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="installer", daemon=True)
        self.candidate: Candidate | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def ask(self, request: Check | Probe) -> None:
        """Queue a request; its outcome goes to `answer`."""
        self._asked.put(request)

    def take(self, release: int) -> Candidate | None:
        """Hand the candidate over, None when it is another release's."""
        candidate = self.candidate
        if candidate is None or candidate.release != release:
            return None
        self.candidate = None
        return candidate

    def stop(self, timeout_s: float = 2.0) -> None:
        """End the thread."""
        self._stopping.set()
        self._asked.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _work(self) -> None:
        while not self._stopping.is_set():
            match self._asked.get():
                case Check() as check:
                    self._tell(self._check(check))
                case Probe() as probe:
                    self._tell(self._probe(probe))
                case None:
                    return

    def _check(self, request: Check) -> Checked | CheckFailed:
        self.candidate, self._before_mb = None, self._memory_mb()
        try:
            loaded = load_release(request.release, request.artifact, self._blob, self._threads)
        except (RoadcastError, OSError) as error:
            return CheckFailed(request.release, str(error))
        self.candidate = loaded  # whoever discards it closes it
        try:
            self._check_memory()
        except DeploymentError as error:
            return CheckFailed(request.release, str(error))
        return Checked(request.release)

    def _check_memory(self) -> None:
        grown, allowed = self._memory_mb() - self._before_mb, self._config.memory_mb
        if grown > allowed:
            raise DeploymentError(f"the agent grew by {grown:.0f} MB with the candidate, allowed are {allowed}")

    def _probe(self, request: Probe) -> Passed | Failed:
        candidate, bundle = self.candidate, self._running()
        if candidate is None or candidate.release != request.release:
            return Failed(request.release, "the candidate is gone; it was superseded")
        flow = Flow(self._frames)
        try:
            verdict = try_candidate(
                candidate.runner.infer,
                bundle.runner.infer if bundle else None,
                self._batches(candidate),
                latency_factor=self._config.latency_factor,
                latency_floor_s=self._config.latency_floor_ms / 1e3,
                classes=self._spec.kind == "classify",
            )
            self._check_memory()
            if bundle is not None:
                flow.check()
        except RoadcastError as error:
            return Failed(request.release, str(error))
        except (
            Exception
        ) as error:  # a runtime's own errors share no base class, and a dead thread would hang the device
            LOG.exception("release %d on probation", request.release)
            return Failed(request.release, f"{type(error).__name__}: {error}")
        LOG.info("release %d stood its probation: %s", request.release, verdict)
        return Passed(request.release)

    def _batches(self, candidate: Candidate) -> list[F4]:
        """Live samples that come now; what is lacking comes from the replay store; and the golden inputs."""
        wanted, begun = self._config.frames, self._seen.total
        deadline = time.monotonic() + self._config.wait_s
        while self._seen.total - begun < wanted and time.monotonic() < deadline and not self._stopping.is_set():
            self._stopping.wait(_POLL_S)
        live = self._seen.latest(min(self._seen.total - begun, wanted))
        stored = self._stored(wanted - len(live)) if len(live) < wanted else ()
        batches = [self._prepare(raw) for raw in live]
        return [*batches, *(self._prepare(raw[None]) for raw in stored), candidate.golden[:1]]
