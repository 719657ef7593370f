"""What a fleet needs before its first device: authority, broker and enrolment service, by our own commands."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.fakes.waiting import wait_for

HOST = "127.0.0.1"
"""Where every service listens."""
_STARTS_S = 120.0


class Steps:
    """What somebody types, with how long each took.

    Attributes:
        taken: the command in short, and seconds.
    """

    def __init__(self) -> None:
        self.taken: list[tuple[str, float]] = []

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Time a step."""
        began = time.monotonic()
        yield
        self.taken.append((what, time.monotonic() - began))

    def roadcast(self, *arguments: object) -> str:
        """Run one of our commands on this machine; return what it printed."""
        with self.step("roadcast " + " ".join(str(part) for part in arguments[:2])):
            return roadcast(*arguments)

    def __str__(self) -> str:
        lines = [f"{seconds:7.1f} s  {what}" for what, seconds in self.taken]
        total = sum(seconds for _, seconds in self.taken)
        return "\n".join([*lines, f"{total:7.1f} s  in {len(self.taken)} steps"])


def say(text: object) -> None:
    """Print beside pytest's own output (`-s`)."""
    sys.stdout.write(f"{text}\n")


def roadcast(*arguments: object) -> str:
    """Run a command of ours to its end; return what it printed."""
    ran = subprocess.run(_command(arguments), capture_output=True, text=True, env=_environment(), check=False)
    assert ran.returncode == 0, f"{' '.join(map(str, arguments))}: {ran.stderr or ran.stdout}"
    return ran.stdout.strip()


@contextmanager
def serving(log: Path, *arguments: object) -> Iterator[None]:
    """Run a command of ours that serves; ended in order afterwards, and killed whatever happens."""
    with log.open("ab") as out:
        process = subprocess.Popen(_command(arguments), stdout=out, stderr=out, env=_environment())
        try:
            yield
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
            process.wait()


def _command(arguments: tuple[object, ...]) -> list[str]:
    return [sys.executable, "-m", "roadcast", *map(str, arguments)]


def _environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


class Authority:
    """An authority with its broker and its enrolment service.

    Args:
        folder: for everything of it.
        fleet: name of the fleet.
        seen_as: under which address a device reaches this machine.

    Attributes:
        port: of the broker.
    """

    def __init__(self, folder: Path, fleet: str, seen_as: str = HOST) -> None:
        self._folder, self._ca = folder, folder / "ca"
        self.port, self._service = free_port(), free_port()
        self._seen_as = seen_as
        self._hosts = tuple(part for host in dict.fromkeys((HOST, seen_as)) for part in ("--host", host))
        broker = ("--out", folder / "broker", *self._hosts, "--port", self.port)
        self._begin = (
            ("ca", "init", "--dir", self._ca, "--fleet", fleet),
            ("broker", "config", *broker, "--ca", self._ca),
        )

    @contextmanager
    def running(self, steps: Steps) -> Iterator[None]:
        """Make everything, and run both services."""
        for command in self._begin:
            steps.roadcast(*command)
        broker, service = self._folder / "broker", (*self._hosts, "--port", self._service)
        with ExitStack() as services:
            self._serve(services, steps, self.port, "broker", "run", "--secure", broker)
            self._serve(services, steps, self._service, "ca", "serve", "--dir", self._ca, *service, "--broker", broker)
            yield

    def token(self, name: str, steps: Steps) -> str:
        """A token for a name."""
        url = f"https://{HOST if name == 'server' else self._seen_as}:{self._service}"
        return steps.roadcast("ca", "token", name, "--dir", self._ca, "--url", url)

    def _serve(self, services: ExitStack, steps: Steps, port: int, *command: object) -> None:
        with steps.step(f"roadcast {command[0]} {command[1]} (a service)"):
            services.enter_context(serving(self._folder / f"{command[0]}.log", *command))
            wait_for(lambda: _answers(port), f"an answer at port {port}", within_s=_STARTS_S)


def _answers(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
