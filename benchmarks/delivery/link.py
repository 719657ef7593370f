"""A bad link between a device and its broker: rate, delay, stalls and cuts, and how many bytes it carried. TCP only.

Bytes wait in a queue of bounded length, cross at the link's rate, and arrive after the delay; each direction by itself,
all connections together. A cut loses what waits and what is under way, as a modem does that loses its cell.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from contextlib import suppress

from devices.closing import Closing

PIECE = 4096
QUEUE_BYTES = 256 * 1024
"""What a modem's buffer holds."""
LATE_S = 0.05
"""A thread that wakes up so much too late on a busy machine makes it up."""


class Link(Closing):
    """Forwards to one port on loopback until it is closed.

    Args:
        port: where the broker listens.
        rate: bytes a second in each direction; None for no limit.
        delay_s: one way.

    Attributes:
        port: where the link begins.
        carried: bytes that crossed, ``up`` from and ``down`` to the device.
    """

    def __init__(self, port: int, rate: float | None = None, delay_s: float = 0.0) -> None:
        self.rate, self.delay_s, self._target = rate, delay_s, port
        self.carried = {"up": 0, "down": 0}
        self._free_at = {"up": 0.0, "down": 0.0}
        self._stalled_until = 0.0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def stall(self, seconds: float) -> None:
        """Carry nothing for a while; connections stay open."""
        self._stalled_until = time.monotonic() + seconds

    def cut(self) -> None:
        """End every connection; new ones are taken."""
        with self._lock:
            links, self._open = self._open, set()
        for link in links:
            _shut(link)

    def close(self) -> None:
        """End everything."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket()
            for side in (near, far):
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.rate is not None:
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE)
            try:
                far.connect(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            with self._lock:
                self._open |= {near, far}
            _Direction(self, "up", near, far).start()
            _Direction(self, "down", far, near).start()

    def count(self, way: str, count: int) -> None:
        """Add what crossed; connections have threads of their own."""
        with self._lock:
            self.carried[way] += count

    def cross(self, way: str, count: int) -> float:
        """Wait until so many bytes have crossed; return when they arrive."""
        with self._lock:
            now, free = time.monotonic(), self._free_at[way]
            begun = free if now - free < LATE_S else now
            self._free_at[way] = begun + (count / self.rate if self.rate else 0.0)
            done = self._free_at[way]
        while (wait := max(done, self._stalled_until) - time.monotonic()) > 0:
            time.sleep(wait)
        with self._lock:
            self._free_at[way] = max(self._free_at[way], self._stalled_until)
            self.carried[way] += count
        return time.monotonic() + self.delay_s


class _Direction:
    """One direction of one connection: a queue, what crosses, what is under way."""

    def __init__(self, link: Link, way: str, source: socket.socket, sink: socket.socket) -> None:
        self._link, self._way, self._source, self._sink = link, way, source, sink
        self._queue: deque[bytes] = deque()
        self._flying: deque[tuple[float, bytes]] = deque()
        self._changed = threading.Condition()
        self._waiting = 0
        self._ended = False

    def start(self) -> None:
        """Begin to forward."""
        shaped = self._link.rate is not None or self._link.delay_s
        for work in (self._read, self._carry, self._land) if shaped else (self._copy,):
            threading.Thread(target=work, daemon=True).start()

    def _copy(self) -> None:
        with suppress(OSError):
            while data := self._source.recv(1 << 16):
                self._link.count(self._way, len(data))
                self._sink.sendall(data)
        self._end()

    def _read(self) -> None:
        with suppress(OSError):
            while data := self._source.recv(PIECE):
                with self._changed:
                    self._changed.wait_for(lambda: self._waiting < QUEUE_BYTES or self._ended)
                    self._queue.append(data)
                    self._waiting += len(data)
                    self._changed.notify_all()
        self._end()

    def _carry(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._ended)
                if self._ended:
                    return
                data = self._queue.popleft()
            at = self._link.cross(self._way, len(data))
            with self._changed:
                self._waiting -= len(data)
                self._flying.append((at, data))
                self._changed.notify_all()

    def _land(self) -> None:
        with suppress(OSError):
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._flying or self._ended)
                    if self._ended:
                        return
                    at, data = self._flying.popleft()
                time.sleep(max(at - time.monotonic(), 0))
                self._sink.sendall(data)
        self._end()

    def _end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        _shut(self._source)
        _shut(self._sink)


def _shut(link: socket.socket) -> None:
    with suppress(OSError):
        link.shutdown(socket.SHUT_RDWR)
    link.close()
