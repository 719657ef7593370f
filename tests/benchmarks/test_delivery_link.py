"""The simulated link of the delivery benchmarks: what it carries is whole, counted, and gone when it is cut."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator

import pytest

from benchmarks.delivery.link import Link

DATA = random.Random(8).randbytes(200_000)


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that sends back what it is sent; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(link: socket.socket) -> None:
        with link:
            while data := link.recv(1 << 16):
                link.sendall(data)

    def accept() -> None:
        while True:
            try:
                link, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(link,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def there_and_back(port: int) -> bytes:
    """Send the data through a link, and read it back."""
    with socket.create_connection(("127.0.0.1", port), 30) as side:
        threading.Thread(target=side.sendall, args=(DATA,), daemon=True).start()
        found = b""
        while len(found) < len(DATA):
            found += side.recv(1 << 16)
        return found


@pytest.mark.parametrize(("rate", "delay_s"), [(None, 0.0), (2_000_000.0, 0.02)])
def test_what_crosses_is_whole_and_counted(echo: int, rate: float | None, delay_s: float) -> None:
    """With and without a shape, in both directions."""
    with Link(echo, rate, delay_s) as link:
        assert there_and_back(link.port) == DATA
        assert link.carried == {"up": len(DATA), "down": len(DATA)}


def test_a_cut_ends_what_is_open_and_lets_new_ones_in(echo: int) -> None:
    """As a modem does that finds its cell again."""
    with Link(echo, 1_000_000.0, 0.01) as link:
        with socket.create_connection(("127.0.0.1", link.port), 30) as side:
            side.sendall(b"x")
            assert side.recv(1) == b"x"
            link.cut()
            try:
                ended = side.recv(1)
            except ConnectionError:
                ended = b""
            assert ended == b""
        assert there_and_back(link.port) == DATA
