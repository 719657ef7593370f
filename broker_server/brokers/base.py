"""A broker as a child process: started with a configuration of ours, awaited until it answers, ended in order.

Owns the process and its state folder, and no message. The child also ends when the thread that started it ends, however
that happens (`prctl(2)`, PR_SET_PDEATHSIG): start it from a thread that lives as long as it should.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sysconfig
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final

from typing_extensions import Self

from edge_protocol.errors import NotReadyError, StoreError, TransportError
from edge_protocol.transport.settings import BrokerSettings

_CONNECT: Final = b"\x10\x1a\x00\x04MQTT\x04\x02\x00\x05\x00\x0eroadcast-probe"
_ACCEPTED: Final = b"\x20\x02\x00\x00"
_DISCONNECT: Final = b"\xe0\x00"
_POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerOptions:
    """What a private broker is started with.

    Attributes:
        state_dir: folder for its configuration, log and retained messages; made when missing.
        host: address to bind.
        port: TCP port; 0 takes a free one and keeps it.
        max_packet_bytes: largest message it takes.
        max_queued_messages: messages it keeps for a slow client before it drops the newest.
        start_timeout_s: how long it may take until it answers.
        stop_timeout_s: how long it may take to end before it is killed.
    """

    state_dir: Path
    host: str = "127.0.0.1"
    port: int = 0
    max_packet_bytes: int = 1 << 20
    max_queued_messages: int = 10_000
    start_timeout_s: float = 15.0
    stop_timeout_s: float = 5.0


class Broker(ABC):
    """A broker process; use it as a context manager, or `start` and `stop` it."""

    kind: ClassVar[str]
    install: ClassVar[str]
    """How to get the program, for the error message."""

    def __init__(self, options: BrokerOptions) -> None:
        self.options = options
        self.port = options.port
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    @abstractmethod
    def program(cls) -> str | None:
        """Path of the program, or None when it is not installed."""

    @abstractmethod
    def configuration(self) -> str:
        """The text of its configuration file."""

    @abstractmethod
    def arguments(self, file: Path) -> list[str]:
        """Arguments that make the program read `file`."""

    def answers(self) -> bool:
        """Tell whether it accepts a client."""
        return answers(self.settings.host, self.port, timeout_s=1.0)

    @property
    def settings(self) -> BrokerSettings:
        """How a client on this machine reaches it."""
        every_address = ip_address(self.options.host).is_unspecified if _is_address(self.options.host) else False
        host = "127.0.0.1" if every_address else self.options.host
        return BrokerSettings(host=host, port=self.port, max_packet_bytes=self.options.max_packet_bytes)

    @property
    def log_file(self) -> Path:
        """Where it writes its log."""
        return self.options.state_dir / f"{self.kind}.log"

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process, while it lives."""
        return self._process.pid if self._process is not None and self.running else None

    def start(self) -> None:
        """Start it, and return once it answers an MQTT CONNECT.

        Raises:
            NotReadyError: the program is missing, the port is taken, or it ended.
            StoreError: its state folder cannot be written.
            TransportError: it did not answer within `start_timeout_s`.
        """
        if self.running:
            return
        program = self.program()
        if program is None:
            raise NotReadyError(f"broker {self.kind}: the program is not installed; {self.install}")
        self.port = self.port or _free_port(self.options.host)
        _check_free(self.kind, self.options.host, self.port)
        command = [*_ends_with_its_parent(), program, *self.arguments(self._configure())]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(  # in its own session: Ctrl-C is for us, and we end it last
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self._await_answer(self._process)
        except BaseException:
            self.stop()
            raise

    def _configure(self) -> Path:
        folder = self.options.state_dir
        file = folder / f"{self.kind}.conf"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file.write_text(self.configuration(), encoding="utf-8")
        except OSError as error:
            raise StoreError(f"{folder}: cannot be written: {error.strerror or error}; give another folder") from error
        return file

    def stop(self) -> None:
        """End it by SIGTERM, so that it saves what it retains, or SIGKILL when that takes too long. Safe to repeat."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(self.options.stop_timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """End it as a power cut does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the process to end by itself; return whether it has."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _await_answer(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self.options.start_timeout_s
        while not self.answers():
            if process.poll() is not None:
                raise NotReadyError(f"broker {self.kind} ended with code {process.returncode}: {self._last_words()}")
            if time.monotonic() > deadline:
                seconds = self.options.start_timeout_s
                raise TransportError(f"broker {self.kind} does not answer after {seconds} s: {self._last_words()}")
            time.sleep(_POLL_S)

    def _last_words(self) -> str:
        lines = self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-3:]
        return f"{' | '.join(lines) or 'it said nothing'} (log: {self.log_file})"


def answers(host: str, port: int, *, timeout_s: float) -> bool:
    """Tell whether an MQTT broker accepts a CONNECT there."""
    try:
        with socket.create_connection((host, port), timeout_s) as link:
            link.sendall(_CONNECT)
            accepted = link.recv(len(_ACCEPTED)) == _ACCEPTED
            link.sendall(_DISCONNECT)
            return accepted
    except OSError:
        return False


def find_program(name: str) -> str | None:
    """Find a program on PATH, in this environment's scripts, or where Debian puts servers."""
    places = (None, sysconfig.get_path("scripts"), "/usr/sbin:/usr/local/sbin")
    return next((found for place in places if (found := shutil.which(name, path=place))), None)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _check_free(kind: str, host: str, port: int) -> None:
    """Refuse a port that another program holds; its answers would be taken for our broker's."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise NotReadyError(f"broker {kind} on {host}:{port}: {error.strerror}; choose another port") from error


def _free_port(host: str) -> int:
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        port: int = listener.getsockname()[1]
        return port


def _ends_with_its_parent() -> list[str]:
    """Make the child receive SIGTERM when its parent dies; nothing where util-linux has no such command."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig=TERM"] if setpriv else []
