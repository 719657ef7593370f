"""What a peer's processes and the benchmark tell each other, beside the link that is measured.

Runs in the peers' environment: standard library only. ``PEERS_PORT`` is where the benchmark listens on loopback.
"""

from __future__ import annotations

import hashlib
import os
import random
import socket
import time
from collections.abc import Callable, Iterator

BYTES = 5_000_000
PORT = "PEERS_PORT"


def blob(seed: int) -> tuple[bytes, str]:
    """Bytes of a turn, and their SHA-256."""
    data = random.Random(seed).randbytes(BYTES)
    return data, hashlib.sha256(data).hexdigest()


def turns() -> Iterator[tuple[int, Callable[[], None]]]:
    """On the server: the seed of each turn, and what to call at the moment when sending begins."""
    with _connect() as link, link.makefile("r", encoding="ascii") as lines:
        _say(link, "ready")
        for line in lines:
            yield int(line), lambda: _say(link, f"begun {time.monotonic()}")
            _say(link, "ready")


def arrived(who: object, data: bytes | memoryview, sha256: str) -> None:
    """On a client: verify what came, and say when that was done."""
    verified = hashlib.sha256(data).hexdigest() == sha256
    now = time.monotonic()
    with _connect() as link:
        _say(link, f"{'verified' if verified else 'damaged'} {now} {sha256} {who}")


def _connect() -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(os.environ[PORT])), 60)


def _say(link: socket.socket, line: str) -> None:
    link.sendall(f"{line}\n".encode("ascii"))
