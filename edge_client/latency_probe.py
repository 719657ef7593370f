"""Measures the serving student when the server asks: one subprocess at a time, bounded; owns no frame and no link."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_client.config import DeviceConfig
from edge_client.disk import write_atomic
from edge_client.effects import MeasureLatency
from edge_client.latency_job import ERROR, JOB, RESULT, LatencyJob, LatencyResult
from edge_client.pipelines import Bundle
from edge_protocol.errors import RoadcastError
from edge_protocol.manifest import Artifact
from edge_protocol.messages import Measured
from edge_protocol.task import TaskSpec

PATIENCE_S = 60.0
"""Beyond the seconds asked for, after which a subprocess is killed: it starves, or hangs."""
_KILL_WAIT_S = 5.0
_MOST_REASON = 500


@dataclass(eq=False, slots=True)
class _Current:
    asked: bytes
    release: int
    provider: str
    until: float
    process: subprocess.Popen[bytes]


class LatencyProbe:
    """Starts the subprocess and reads what came of it; used by one thread only.

    Args:
        config: the device's.
        spec: its task.
        blob: where a blob is.
        command: what to run; the job's folder is appended.
    """

    def __init__(
        self, config: DeviceConfig, spec: TaskSpec, blob: Callable[[str], Path], command: tuple[str, ...] = ()
    ) -> None:
        self._config, self._spec, self._blob = config, spec, blob
        self._command = command or (sys.executable, "-m", "edge_client.latency_job")
        self._folder = Path(config.state_dir) / "latency"
        self._current: _Current | None = None
        self._last = b""

    def start(
        self, wanted: MeasureLatency, artifact: Artifact | None, bundle: Bundle | None, now: float, *, training: bool
    ) -> Measured | None:
        """Begin to measure; the answer at once when that cannot be, None when it comes later or was given before.

        Args:
            wanted: by whom, and how long.
            artifact: files of what answers frames.
            bundle: what answers frames.
            now: seconds of any clock that never goes back.
            training: whether a training job runs.
        """
        if wanted.asked == self._last:
            return None  # the broker delivers twice now and then
        self._last = wanted.asked
        release = bundle.release if bundle else 0
        if artifact is None or bundle is None:
            return self._refusal(wanted.asked, release, "nothing answers frames on this device yet")
        if self._current is not None or training:
            what = "trains" if training else "measures"
            return self._refusal(wanted.asked, release, f"the device {what} already; ask again later")
        try:
            process = self._spawn(artifact, wanted.seconds)
        except (RoadcastError, OSError) as error:
            return self._refusal(wanted.asked, release, f"could not be started: {error}")
        until = now + wanted.seconds + PATIENCE_S
        self._current = _Current(wanted.asked, release, bundle.runner.provider, until, process)
        return None

    def poll(self, now: float) -> Measured | None:
        """The answer, once the subprocess has ended or is overdue at `now` (s)."""
        current = self._current
        if current is None:
            return None
        code = current.process.poll()
        if code is None and now < current.until:
            return None
        found = self._read(current, code)
        self.stop()
        return found

    def stop(self) -> None:
        """End whatever runs; its files go too."""
        if self._current is not None:
            if self._current.process.poll() is None:
                self._current.process.kill()
            self._current.process.wait(_KILL_WAIT_S)
        self._current = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _spawn(self, artifact: Artifact, seconds: float) -> subprocess.Popen[bytes]:
        shutil.rmtree(self._folder, ignore_errors=True)
        job = LatencyJob(
            template=str(self._blob(artifact.template.sha256).resolve()),
            weights=str(self._blob(artifact.weights.sha256).resolve()),
            shape=self._spec.input.shape,
            seconds=seconds,
            threads=self._config.threads,
        )
        write_atomic(self._folder / JOB, msgspec.json.encode(job))
        return subprocess.Popen(
            [*self._command, str(self._folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": str(self._config.threads)},
        )

    def _read(self, current: _Current, code: int | None) -> Measured:
        if code is None:
            return self._refusal(current.asked, current.release, f"killed: not done {PATIENCE_S:g} s after its time")
        try:
            if code:
                said = (self._folder / ERROR).read_text(encoding="utf-8") if (self._folder / ERROR).exists() else ""
                return self._refusal(current.asked, current.release, f"ended with code {code}: {said or 'no word'}")
            found = msgspec.json.decode((self._folder / RESULT).read_bytes(), type=LatencyResult)
        except (OSError, msgspec.DecodeError) as error:
            return self._refusal(current.asked, current.release, f"its result cannot be read: {error}")
        if found.ran != current.provider:
            says = f"frames are answered by {current.provider}, which cannot be measured beside them"
            return self._refusal(current.asked, current.release, says)
        return Measured(self._spec.name, current.asked, current.release, found.ran, found.queries, found.values)

    def _refusal(self, asked: bytes, release: int, reason: str) -> Measured:
        return Measured(self._spec.name, asked, release, "", 0, {}, reason[:_MOST_REASON])
