"""Turns of a peer's server and clients, as the benchmark leads them: when one began, who has verified, what crossed."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, Queue
from types import TracebackType

from typing_extensions import Self

from benchmarks.delivery.link import Link
from benchmarks.delivery.peer_side.turns import blob
from edge_protocol.errors import CheckFailedError, NotReadyError


@dataclass(frozen=True)
class Crossed:
    """One turn: seconds from the begin until the last of all had verified bytes, and bytes that crossed meanwhile."""

    seconds: float
    down: int
    up: int

    @property
    def total(self) -> int:
        """Bytes of both directions."""
        return self.down + self.up


class Meter:
    """How many bytes a link carries from now on."""

    def __init__(self, link: Link) -> None:
        self._link, self._before = link, dict(link.carried)

    def crossed(self, seconds: float) -> Crossed:
        """What a turn of so many seconds carried."""
        now = dict(self._link.carried)
        return Crossed(seconds, now["down"] - self._before["down"], now["up"] - self._before["up"])


class Lead:
    """Listens on loopback for a peer's processes, and leads its server.

    Attributes:
        port: where the peer's processes find it (`benchmarks.delivery.peer_side.turns.PORT`).
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._said: Queue[tuple[list[str], socket.socket]] = Queue()
        self._server: socket.socket | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in filter(None, (self._listener, self._server)):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until the peer's server can take a turn.

        Raises:
            NotReadyError: it took longer.
        """
        until, words = time.monotonic() + timeout_s, [""]
        while words[0] != "ready":
            words, self._server = self._hear(until, "its server to be ready")

    def turn(self, seed: int, count: int, link: Link, timeout_s: float = 180) -> Crossed:
        """Have the server send the blob of a seed to so many clients; return when it is ready again.

        Raises:
            NotReadyError: that took longer than `timeout_s`.
            CheckFailedError: a client has other bytes than were sent.
        """
        assert self._server is not None
        sha256, ends_at = blob(seed)[1], time.monotonic() + timeout_s
        meter = Meter(link)
        with suppress(OSError):  # a server that has gone is heard of
            self._server.sendall(f"{seed}\n".encode("ascii"))
        begun, ended, ready = 0.0, dict[str, float](), False
        while not begun or len(ended) < count:
            words, _ = self._hear(ends_at, f"{count - len(ended)} of {count} clients")
            if words[0] == "begun":
                begun = float(words[1])
            elif words[0] == "ready":
                ready = True
            elif words[0] == "damaged":
                raise CheckFailedError(f"client {words[3]} was sent bytes other than those of turn {seed}")
            elif words[2] == sha256:
                ended[words[3]] = float(words[1])
        found = meter.crossed(max(ended.values()) - begun)
        if not ready:
            self.wait_ready(timeout_s)
        return found

    def _hear(self, until: float, what: str) -> tuple[list[str], socket.socket]:
        while True:
            try:
                words, link = self._said.get(timeout=max(until - time.monotonic(), 0))
            except Empty:
                raise NotReadyError(f"waited too long for {what}; the peer's logs say why") from None
            if words != ["gone"]:
                return words, link
            if link is self._server:
                raise NotReadyError(f"the peer's server ended while we waited for {what}; its logs say why")

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                link, _ = self._listener.accept()
                threading.Thread(target=self._listen, args=(link,), daemon=True).start()

    def _listen(self, link: socket.socket) -> None:
        with link, suppress(OSError), link.makefile("r", encoding="ascii") as lines:
            for line in lines:
                self._said.put((line.split(), link))
            self._said.put((["gone"], link))
