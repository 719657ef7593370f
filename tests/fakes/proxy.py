"""A TCP proxy with faults: cut every link, hold bytes back, or stop forwarding while the links stay open."""

from __future__ import annotations

import contextlib
import socket
import threading

from devices.closing import Closing


class Proxy(Closing):
    """Forwards to one target until `close`.

    Args:
        port: where the target listens on loopback.

    Attributes:
        port: where the proxy listens.
        delay_s: each piece of data waits this long, in each direction.
        links: connections accepted so far.
    """

    def __init__(self, port: int) -> None:
        self.delay_s = 0.0
        self.links = 0
        self._target = port
        self._flowing = threading.Event()
        self._flowing.set()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._spawn(self._accept)

    def cut(self) -> None:
        """Close every link there is; new ones are taken."""
        with self._lock:
            links, self._open = self._open, set()
        for link in links:
            _shut(link)

    def stall(self) -> None:
        """Stop forwarding, as a link does whose other end has lost power."""
        self._flowing.clear()

    def flow(self) -> None:
        """Forward again."""
        self._flowing.set()

    def close(self) -> None:
        """Close every link and end every thread."""
        self._closed.set()
        self.flow()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in list(self._threads):
            thread.join(5)

    def _spawn(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.links += 1
            try:
                far = socket.create_connection(("127.0.0.1", self._target), 5)
                far.settimeout(None)
            except OSError:
                near.close()
                continue
            with self._lock:
                self._open |= {near, far}
            self._spawn(self._pump, near, far)
            self._spawn(self._pump, far, near)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._closed.wait(self.delay_s)
                self._flowing.wait()
                sink.sendall(data)
        _shut(source)
        _shut(sink)


def _shut(link: socket.socket) -> None:
    with contextlib.suppress(OSError):
        link.shutdown(socket.SHUT_RDWR)
    link.close()
