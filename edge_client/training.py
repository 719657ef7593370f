"""Runs training jobs as subprocesses: low priority, bounded memory, killable; owns one process at a time, no torch.

A job that crashes, starves or hangs costs a round, never a frame.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from edge_client.jobs import TrainJob, TrainResult, read_result, write_job
from edge_protocol.errors import RoadcastError, StoreError

_STDERR_BYTES = 400
_KILL_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Finished:
    """A job that ended: its result, or why there is none.

    Attributes:
        job: its number.
        folder: its files.
        result: None when it failed.
        reason: "" when it did not.
    """

    job: int
    folder: Path
    result: TrainResult | None
    reason: str = ""


@dataclass(slots=True)
class _Running:
    job: int
    folder: Path
    process: subprocess.Popen[bytes]
    deadline: float


class Training:
    """One training subprocess at a time; used by one thread only.

    Args:
        folder: ``<state>/jobs``; what an earlier boot left there is deleted.
        timeout_s: after which a job is killed.
        command: what to run; the job's folder is appended.
    """

    def __init__(self, folder: Path, timeout_s: float, command: tuple[str, ...] = ()) -> None:
        self._folder, self._timeout_s = folder, timeout_s
        self._command = command or (sys.executable, "-m", "edge_client.trainer")
        self._running: _Running | None = None
        shutil.rmtree(folder, ignore_errors=True)

    @property
    def busy(self) -> bool:
        """Whether a job is running."""
        return self._running is not None

    def start(self, number: int, job: TrainJob, now: float) -> Finished | None:
        """Start a job in place of one that is running; `Finished` at once when it cannot be started."""
        self.stop()
        folder = self._folder / str(number)
        try:
            write_job(folder, job)
            with (folder / "stderr").open("wb") as stderr:
                process = subprocess.Popen(
                    [*self._command, str(folder)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    env=os.environ | {"OMP_NUM_THREADS": "1"},
                )
        except (OSError, RoadcastError) as error:
            return Finished(number, folder, None, f"training could not be started: {error}")
        self._running = _Running(number, folder, process, now + self._timeout_s)
        return None

    def poll(self, now: float) -> Finished | None:
        """Say when the job has ended; kill it when its time is over at `now` (s)."""
        running = self._running
        if running is None:
            return None
        code = running.process.poll()
        if code is None:
            if now < running.deadline:
                return None
            self._end(running)
            return Finished(running.job, running.folder, None, f"killed after {self._timeout_s:g} s")
        self._end(running)
        if code:
            return Finished(running.job, running.folder, None, f"ended with code {code}: {_complaint(running.folder)}")
        try:
            return Finished(running.job, running.folder, read_result(running.folder))
        except StoreError as error:
            return Finished(running.job, running.folder, None, str(error))

    def stop(self, number: int | None = None) -> None:
        """Kill the running job, or only the one of that number; its files go too."""
        running = self._running
        if running is not None and number in {None, running.job}:
            self._end(running)
            self.discard(running.folder)

    def discard(self, folder: Path) -> None:
        """Delete the files of a job that has been read."""
        shutil.rmtree(folder, ignore_errors=True)

    def _end(self, running: _Running) -> None:
        if running.process.poll() is None:
            running.process.kill()
        running.process.wait(_KILL_WAIT_S)
        self._running = None


def _complaint(folder: Path) -> str:
    """The end of what the job said, "" when nothing can be read."""
    try:
        return (folder / "stderr").read_bytes()[-_STDERR_BYTES:].decode(errors="replace").strip()
    except OSError:
        return ""
