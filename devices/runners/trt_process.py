"""Builds a TensorRT plan in a process of its own: limited in time, killed before the board's memory is spent.

On a Jetson the GPU's memory is the board's, and a build takes one to two GiB: without a guard a board of 4 GB stops
answering altogether. The process has the lowest priority, and is the first that the kernel would kill.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from devices.boards.host import read_memory, read_room
from devices.boards.machine import Machine
from devices.runners.trt_build import ERROR, ORDER, PLAN, REMEDY, TIMING, Built, Order, Tell
from edge_protocol.errors import DeploymentError, StoreError

_POLL_S: Final = 0.1
_KILL_WAIT_S: Final = 10.0
_COMPLAINT: Final = 400


class Limits(msgspec.Struct, frozen=True):
    """What a build may take.

    Attributes:
        seconds: until it is killed.
        needed: bytes of memory that must be free before it begins.
        spare: bytes that must stay free; below them it is killed.
    """

    seconds: float = 1800.0
    needed: int = 1 << 30
    spare: int = 256 << 20


class StoppedError(DeploymentError):
    """Nobody wanted the plan any more."""


class _Said(msgspec.Struct):
    phase: str
    share: float


def free_memory(machine: Machine | None = None) -> int | None:
    """Bytes that this board, and the service that this is, could give to a build; None where neither says."""
    machine = machine or Machine()
    said = [room for room in (read_memory(machine).available, read_room(machine)) if room is not None]
    return min(said, default=None)


def build_apart(
    folder: Path,
    order: Order,
    timing: bytes,
    tell: Tell,
    *,
    limits: Limits | None = None,
    free: Callable[[], int | None] = free_memory,
    stopped: Callable[[], bool] = lambda: False,
    python: tuple[str, ...] = (sys.executable,),
) -> Built:
    """Build a plan and wait for it.

    Args:
        folder: with the student; the build's files are left in it.
        order: what is to be built.
        timing: of an earlier build on this board, or nothing.
        tell: hears of progress.
        limits: what it may take.
        free: see `free_memory`.
        stopped: whether nobody wants the plan any more; asked ten times a second.
        python: what runs the build.

    Raises:
        DeploymentError: no plan came of it: refused, killed, crashed, out of memory or too slow; with what to do.
        StoreError: the disk refuses.
    """
    limits = limits or Limits()
    before = free()
    if before is not None and before < limits.needed:
        raise DeploymentError(
            f"no plan built: {before >> 20} MiB of memory are free, a build needs {limits.needed >> 20}; {REMEDY}"
        )
    try:
        (folder / ORDER).write_bytes(msgspec.json.encode(order))
        (folder / TIMING).write_bytes(timing)
        for name in (PLAN, ERROR):
            (folder / name).unlink(missing_ok=True)
        process = _start(folder, python)
    except OSError as error:
        raise StoreError(f"{folder}: a build cannot be started: {error.strerror or error}; free space") from error
    try:
        _watch(process, folder, tell, limits, free, stopped)
    finally:
        _kill(process)
    return _result(folder, process.returncode)


def _start(folder: Path, python: tuple[str, ...]) -> subprocess.Popen[bytes]:
    with (folder / "stdout").open("wb") as said, (folder / "stderr").open("wb") as complained:
        process = subprocess.Popen(
            ["nice", "-n", "19", *python, "-m", "devices.runners.trt_build", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=complained,
            start_new_session=True,
        )
    with suppress(OSError):  # it may have ended already
        Path(f"/proc/{process.pid}/oom_score_adj").write_text("1000", encoding="ascii")
    return process


def _watch(
    process: subprocess.Popen[bytes],
    folder: Path,
    tell: Tell,
    limits: Limits,
    free: Callable[[], int | None],
    stopped: Callable[[], bool],
) -> None:
    until, heard = time.monotonic() + limits.seconds, 0
    with (folder / "stdout").open("rb") as said:
        while True:
            ended = process.poll() is not None
            while (line := said.readline()).endswith(b"\n"):
                heard = said.tell()
                with suppress(msgspec.DecodeError):  # TensorRT's plugins print what they like
                    one = msgspec.json.decode(line, type=_Said)
                    tell(one.phase, one.share)
            said.seek(heard)
            if ended:
                return
            left = free()
            if left is not None and left < limits.spare:
                raise DeploymentError(f"build of a plan killed: {left >> 20} MiB of memory were left; {REMEDY}")
            if stopped():
                raise StoppedError("build of a plan stopped: a newer release came, or the agent ends")
            if time.monotonic() > until:
                raise DeploymentError(
                    f"build of a plan killed after {limits.seconds:g} s: allow more, or let ONNX Runtime answer"
                )
            time.sleep(_POLL_S)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait(_KILL_WAIT_S)


def _result(folder: Path, code: int) -> Built:
    if code == -signal.SIGKILL:
        raise DeploymentError(f"build of a plan killed by the system, which was short of memory; {REMEDY}")
    if code:
        reason = _text(folder / ERROR) or f"ended with code {code}: {_text(folder / 'stderr')[-_COMPLAINT:]}"
        raise DeploymentError(f"no plan built: {reason}; the running student is untouched")
    try:
        return Built((folder / PLAN).read_bytes(), (folder / TIMING).read_bytes())
    except OSError as error:
        raise StoreError(f"{folder}: the plan cannot be read: {error.strerror or error}; build it again") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
