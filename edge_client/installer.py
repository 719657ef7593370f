"""Loads candidates, has plans made of them and puts them on probation, in a thread of its own.

The running bundle serves on meanwhile. When there is nothing else to do, the release that serves is put into TensorRT
if it is not, or if the board's state is another one than its plan was made for. Owns the candidate's runner until it is
installed; owns no pointer and no table.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from devices.runners.base import Runner
from edge_client.candidate import Blob, Candidate, load_release
from edge_client.config import DeviceConfig
from edge_client.costs import resident_mb
from edge_client.effects import Check, Checked, CheckFailed, Failed, Passed, Probe
from edge_client.inference import Counters
from edge_client.pipelines import Bundle
from edge_client.plan_effects import BuildPlan, Planned
from edge_client.planner import Planner
from edge_client.probation import Flow, Verdict, try_candidate
from edge_client.seen import Seen
from edge_client.standby import WithStandby
from edge_models.samples import F4
from edge_protocol.errors import DeploymentError, RoadcastError
from edge_protocol.task import TaskSpec

LOG = logging.getLogger(__name__)
Prepare = Callable[[npt.NDArray[Any]], F4]
"""Stored samples (N, *raw_shape) to what the student takes (N, *shape) float32."""
Request: TypeAlias = Check | BuildPlan | Probe
_POLL_S = 0.05


class Installer:
    """Answers `Check`, `BuildPlan` and `Probe`, one at a time.

    Args:
        spec: the task.
        config: the device's.
        blob: where a blob is.
        planner: puts releases into TensorRT.
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
        config: DeviceConfig,
        blob: Blob,
        planner: Planner,
        seen: Seen,
        stored: Callable[[int], npt.NDArray[np.generic]],
        prepare: Prepare,
        running: Callable[[], Bundle | None],
        frames: Counters,
        answer: Callable[[object], None],
        memory_mb: Callable[[], float] = resident_mb,
    ) -> None:
        self._spec, self._config, self._threads, self._blob = spec, config.probation, config.threads, blob
        self.planner = planner
        self._seen, self._stored, self._prepare = seen, stored, prepare
        self._running, self._frames, self._tell = running, frames, answer
        self._memory_mb, self._before_mb = memory_mb, 0.0
        self._asked: SimpleQueue[Request | None] = SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="installer", daemon=True)
        self.candidate: Candidate | None = None
        self._serving: Candidate | None = None
        self._renewed: Candidate | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def ask(self, request: Request) -> None:
        """Queue a request; its outcome goes to `answer`."""
        self._asked.put(request)

    def take(self, release: int) -> Candidate | None:
        """Hand the candidate over, None when it is another release's."""
        candidate = self.candidate
        if candidate is None or candidate.release != release:
            return None
        self.candidate = None
        return candidate

    def serves(self, candidate: Candidate) -> None:
        """Take note of what answers frames."""
        self._serving = candidate

    def exchange(self, release: int) -> Candidate | None:
        """Hand over the running release in its new plan, None when it is another release's."""
        renewed, self._renewed = self._renewed, None
        return renewed if renewed and renewed.release == release else None

    def stop(self, timeout_s: float = 2.0) -> None:
        """End the thread."""
        self._stopping.set()
        self._asked.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _work(self) -> None:
        wait = None if self.planner.watch_s is None else 0.0
        while not self._stopping.is_set():
            try:
                request = self._asked.get(timeout=wait)
            except Empty:
                self._renew()
            else:
                if request is None:
                    return
                self._answer(request)
            wait = self.planner.watch_s

    def _answer(self, request: Request) -> None:
        match request:
            case Check():
                self._tell(self._check(request))
            case BuildPlan():
                self._plan(request.release)
            case Probe():
                self._tell(self._probe(request))

    def _check(self, request: Check) -> Checked | CheckFailed:
        self.candidate, self._before_mb = None, self._memory_mb()
        try:
            self.candidate = load_release(request.release, request.artifact, self._blob, self._threads)
            self._check_memory()
        except (RoadcastError, OSError) as error:  # whoever discards the candidate closes it
            return CheckFailed(request.release, str(error))
        return Checked(request.release)

    def _check_memory(self) -> None:
        grown, allowed = self._memory_mb() - self._before_mb, self._config.memory_mb
        if grown > allowed:
            raise DeploymentError(f"the agent grew by {grown:.0f} MB with the candidate, allowed are {allowed}")

    def _plan(self, release: int) -> None:
        """Put the candidate into TensorRT; whatever comes of it, the deployment goes on."""
        before, note = self.candidate, ""
        if before is not None and before.release == release and self.planner.wanted:
            memory_mb = self._memory_mb()
            after = self._planned(before, lambda: self._superseded or self.candidate is not before)
            self._before_mb += self._memory_mb() - memory_mb  # a plan brings the GPU's libraries, in bounds of its own
            if self.candidate is before:
                self.candidate, note = after, after.note
        self._tell(Planned(release, note))

    def _renew(self) -> None:
        """Put what serves into TensorRT, if it is not in it as the board is now, and stands its probation there."""
        before, bundle = self._serving, self._running()
        if before is None or bundle is None or bundle.release != before.release or not self.planner.due(before):
            return
        after = self._planned(before, lambda: self._superseded or self._serving is not before)
        if after is before:
            return
        before.board, note = after.board, after.note
        try:
            if not note:
                self._tried(after, after.runner, bundle)
        except RoadcastError as error:
            note = f"{self.planner.goes_on(before)}: {error}"
        self._renewed = None if note else after
        self._tell(Planned(before.release, note))

    def _planned(self, candidate: Candidate, stopped: Callable[[], bool]) -> Candidate:
        def failed(reason: str) -> None:
            self._tell(Planned(candidate.release, f"ONNX Runtime serves from now on: {reason}"))

        return self.planner.plan(candidate, stopped, failed)

    @property
    def _superseded(self) -> bool:
        return self._stopping.is_set() or not self._asked.empty()

    def _probe(self, request: Probe) -> Passed | Failed:
        candidate, bundle = self.candidate, self._running()
        if candidate is None or candidate.release != request.release:
            return Failed(request.release, "the candidate is gone; it was superseded")
        runner = candidate.runner
        try:
            try:
                verdict = self._tried(candidate, runner, bundle)
            except RoadcastError as error:
                if not isinstance(runner, WithStandby):
                    raise
                self.candidate = replace(candidate, runner=runner.standby)
                self._tell(Planned(request.release, f"{self.planner.goes_on(self.candidate)}: {error}"))
                verdict = self._tried(candidate, runner.standby, bundle)
            self._check_memory()
        except RoadcastError as error:
            return Failed(request.release, str(error))
        except Exception as error:  # a runtime's own errors share no base class, and this thread must live
            LOG.exception("release %d on probation", request.release)
            return Failed(request.release, f"{type(error).__name__}: {error}")
        LOG.info("release %d stood its probation: %s", request.release, verdict)
        return Passed(request.release)

    def _tried(self, candidate: Candidate, runner: Runner, bundle: Bundle | None) -> Verdict:
        flow = Flow(self._frames)
        verdict = try_candidate(
            runner.infer,
            bundle.runner.infer if bundle else None,
            self._batches(candidate),
            latency_factor=self._config.latency_factor,
            latency_floor_s=self._config.latency_floor_ms / 1e3,
            agreement=self._config.agreement,
            classes=self._spec.kind == "classify",
        )
        if bundle is not None:
            flow.check()
        return verdict

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
