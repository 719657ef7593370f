"""Children of the demo: started in process groups of their own, watched, ended together. Owns no meaning of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType

from typing_extensions import Self

from edge_protocol.errors import NotReadyError, RoadcastError

GRACE_S = 3.0
"""After this long a child that was asked to end is killed; the whole takes less than 5 s."""
TAIL_LINES = 15
_POLL_S = 0.02


class ChildDiedError(RoadcastError):
    """A process of the fleet ended by itself; the message holds the end of its log."""


class Supervisor:
    """Starts children and ends every one of them, whatever happens.

    Args:
        logs: folder for ``<name>.log`` (stderr) and ``<name>.out`` (stdout).
        environment: of every child; this process's own when None.
        grace_s: patience with a child that was asked to end.
    """

    def __init__(self, logs: Path, *, environment: Mapping[str, str] | None = None, grace_s: float = GRACE_S) -> None:
        self._logs, self._environment, self._grace_s = logs, environment, grace_s
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _signals_held():  # a second Ctrl-C must not leave children behind
            self.stop()

    def start(self, name: str, *arguments: str) -> None:
        """Start ``roadcast`` with `arguments` as the child `name`."""
        self.launch(name, [sys.executable, "-m", "roadcast", *arguments])

    def launch(self, name: str, command: Sequence[str]) -> None:
        """Start any program as the child `name`, in its own process group."""
        out_file, log_file = self._file(name, "out"), self._file(name, "log")
        with _signals_held(), out_file.open("wb") as out, log_file.open("wb") as log:
            self._children[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )

    def said(self, name: str) -> str:
        """What a child has written to stdout so far."""
        return self._file(name, "out").read_text(encoding="utf-8", errors="replace")

    def check(self) -> None:
        """Notice a child that ended.

        Raises:
            ChildDiedError: with its exit code and the end of its log.
        """
        for name, child in self._children.items():
            code = child.poll()
            if code is not None:
                log = self._file(name, "log")
                lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
                raise ChildDiedError(f"{name} ended by itself ({_how(code)}); the end of {log}:\n" + "\n".join(lines))

    def wait_for(self, name: str, sign: str, timeout_s: float) -> str:
        """Wait until a child's stdout holds `sign`, and return what it said.

        Raises:
            ChildDiedError: a child ended meanwhile.
            NotReadyError: it did not come in time.
        """
        deadline = monotonic() + timeout_s
        while sign not in (text := self.said(name)):
            self.check()
            if monotonic() > deadline:
                raise NotReadyError(f"{name} was not ready after {timeout_s:g} s; see {self._file(name, 'log')}")
            sleep(_POLL_S)
        return text

    def stop(self) -> None:
        """Ask every process group to end, the youngest first, and kill what has not ended after the grace."""
        for child in reversed(self._children.values()):
            _signal(child, signal.SIGTERM)
        deadline = monotonic() + self._grace_s
        while any(child.poll() is None for child in self._children.values()) and monotonic() < deadline:
            sleep(_POLL_S)
        for child in self._children.values():
            _signal(child, signal.SIGKILL)  # the group: a child's own children must not outlive it
            child.wait()
        self._children.clear()

    def _file(self, name: str, suffix: str) -> Path:
        return self._logs / f"{name}.{suffix}"


@contextmanager
def _signals_held() -> Iterator[None]:
    """Hold back what would raise between the start of a child and its entry in the list, or between two kills.

    Handlers, not the signal mask: a child would inherit the mask.
    """
    held: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is interrupted
        return
    before = {number: signal.signal(number, lambda number, _: held.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for caught in held[:1]:
            signal.raise_signal(caught)


def _signal(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(child.pid, number)
    except ProcessLookupError:  # the whole group is gone
        return


def _how(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
