"""Runs training jobs as subprocesses: low priority, bounded memory, held while the board is hot or busy, killable.

Owns one process at a time, no torch. A job that crashes, starves or hangs costs a round, never a frame.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path

from edge_client.governor import Governor, PauseConfig, Phase, Reading
from edge_client.jobs import TrainJob, TrainResult, read_result, write_job
from edge_protocol.errors import RoadcastError, StoreError

_STDERR_BYTES = 400
_KILL_WAIT_S = 5.0
_READ_S = 2.0


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
class _Current:
    job: int
    folder: Path
    process: subprocess.Popen[bytes] | None = None


class Training:
    """One training subprocess at a time, which waits while the board is hot or busy; used by one thread only.

    Args:
        folder: ``<state>/jobs``; what an earlier boot left there is deleted.
        timeout_s: after which a job is killed; pauses do not count.
        command: what to run; the job's folder is appended.
        limits: when a job waits.
        watch: reads the board.
    """

    def __init__(
        self,
        folder: Path,
        timeout_s: float,
        command: tuple[str, ...] = (),
        limits: PauseConfig | None = None,
        watch: Callable[[], Reading] = Reading,
    ) -> None:
        self._folder = folder
        self._command = command or (sys.executable, "-m", "edge_client.trainer")
        self._watch, self._read_at = watch, -inf
        self._current: _Current | None = None
        self.governor = Governor(limits or PauseConfig(), timeout_s)
        shutil.rmtree(folder, ignore_errors=True)

    @property
    def busy(self) -> bool:
        """Whether there is a job, running or waiting."""
        return self._current is not None

    def start(self, number: int, job: TrainJob, now: float) -> Finished | None:
        """Take a job in place of one that is there; `Finished` at once when it cannot be started."""
        self.stop()
        folder = self._folder / str(number)
        try:
            write_job(folder, job)
        except RoadcastError as error:
            return Finished(number, folder, None, f"training could not be started: {error}")
        self._current = _Current(number, folder)
        self._read(now)
        return self._follow(self._current, self.governor.begin(now))

    def poll(self, now: float) -> Finished | None:
        """Say when the job has ended; hold it, let it go on, or kill it when its time is over at `now` (s)."""
        self._read(now)
        current = self._current
        if current is None:
            return None
        code = current.process.poll() if current.process else None
        if code is not None:
            return self._ended(current, code)
        phase = self.governor.advance(now)
        if reason := self.governor.overdue():
            self._end(current)
            return Finished(current.job, current.folder, None, reason)
        return self._follow(current, phase)

    def _read(self, now: float) -> None:
        if now >= self._read_at:
            self._read_at = now + _READ_S
            self.governor.read(self._watch())

    def _follow(self, current: _Current, phase: Phase) -> Finished | None:
        """Bring the process to where the governor wants the job; signals that change nothing are harmless."""
        if current.process is not None:
            current.process.send_signal(signal.SIGCONT if phase is Phase.RUNNING else signal.SIGSTOP)
            return None
        return self._spawn(current) if phase is Phase.RUNNING else None

    def _spawn(self, current: _Current) -> Finished | None:
        try:
            with (current.folder / "stderr").open("wb") as stderr:
                current.process = subprocess.Popen(
                    [*self._command, str(current.folder)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    env=os.environ | {"OMP_NUM_THREADS": "1"},
                )
        except OSError as error:
            self._current = None
            return Finished(current.job, current.folder, None, f"training could not be started: {error}")
        return None

    def _ended(self, current: _Current, code: int) -> Finished:
        self._end(current)
        if code:
            return Finished(current.job, current.folder, None, f"ended with code {code}: {_complaint(current.folder)}")
        try:
            return Finished(current.job, current.folder, read_result(current.folder))
        except StoreError as error:
            return Finished(current.job, current.folder, None, str(error))

    def stop(self, number: int | None = None) -> None:
        """Kill the running job, or only the one of that number; its files go too."""
        current = self._current
        if current is not None and number in {None, current.job}:
            self._end(current)
            self.discard(current.folder)

    def discard(self, folder: Path) -> None:
        """Delete the files of a job that has been read."""
        shutil.rmtree(folder, ignore_errors=True)

    def _end(self, current: _Current) -> None:
        if current.process is not None:
            if current.process.poll() is None:
                current.process.kill()
            current.process.wait(_KILL_WAIT_S)
        self._current = None


def _complaint(folder: Path) -> str:
    """The end of what the job said, "" when nothing can be read."""
    try:
        return (folder / "stderr").read_bytes()[-_STDERR_BYTES:].decode(errors="replace").strip()
    except OSError:
        return ""
