"""Where a device's CPU goes when it receives a release: each stage alone, in one thread, and threads of processes."""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from benchmarks.delivery.receiver import TOPICS
from benchmarks.harness import Spread, spread
from edge_client.disk import Disk
from edge_client.effects import Fetched
from edge_client.fetcher import Fetcher
from edge_protocol.blobs import BlobRef, cut
from edge_protocol.topics import ChunkTopic

REPEATS = 9


@dataclass(frozen=True)
class Threads:
    """CPU seconds of processes so far: of their main threads and of all others (the kernel's schedstat)."""

    main: float
    others: float

    @classmethod
    def of(cls, pids: Iterable[int | None]) -> Threads:
        """Read them."""
        main = others = 0.0
        for pid in pids:
            for task in Path(f"/proc/{pid}/task").iterdir():
                spent = 1e-9 * int((task / "schedstat").read_text(encoding="ascii").split()[0])
                main, others = (main + spent, others) if task.name == str(pid) else (main, others + spent)
        return cls(main, others)

    def __sub__(self, before: Threads) -> Threads:
        """What was spent in between."""
        return Threads(self.main - before.main, self.others - before.others)


class _Silent:
    """A link that is up, and asks nobody."""

    connected = True

    def subscribe(self, filters: Iterable[str]) -> None:
        """Ask nobody."""

    def unsubscribe(self, filters: Iterable[str]) -> None:
        """Tell nobody."""


def stages(data: bytes, place: str | None) -> dict[str, Spread]:
    """CPU seconds of what a device does to these bytes, each stage alone; the fetcher is what the pump thread adds."""
    ref, chunks = cut(data)
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=place) as folder:
        for turn in range(-1, REPEATS):
            spent = {
                "out of the socket": _received(chunks),
                "hash of chunks": _timed(lambda: [sha256(chunk).digest() for chunk in chunks]),
                "hash of the whole": _timed(lambda: sha256(data).digest()),
                "write": _written(chunks, Path(folder) / "write"),
            }
            pump = _fetched(ref, chunks, Path(folder) / "blobs")
            spent["fetcher"] = pump - sum(list(spent.values())[1:])
            for name, seconds in spent.items():
                found.setdefault(name, []).extend([seconds] if turn >= 0 else [])
    return {name: spread(seconds) for name, seconds in found.items()}


def _timed(work: Callable[[], object]) -> float:
    begun = time.thread_time()
    work()
    return time.thread_time() - begun


def _received(chunks: list[bytes]) -> float:
    """Take chunks from a TCP socket, as many bytes at a time as are left of one."""

    def send(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as link:
            for chunk in chunks:
                link.sendall(chunk)

    def take() -> None:
        for chunk in chunks:
            left = len(chunk)
            while left:
                left -= len(link.recv(left))

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=send, args=(server.getsockname()[1],))
        thread.start()
        link, _ = server.accept()
        with link:
            spent = _timed(take)
        thread.join()
    return spent


def _written(chunks: list[bytes], path: Path) -> float:
    disk = Disk()
    with disk.open(path) as file:
        spent = _timed(lambda: [disk.write(file, c, n * len(chunks[0])) for n, c in enumerate(chunks)])
    path.unlink()
    return spent


def _fetched(ref: BlobRef, chunks: list[bytes], folder: Path) -> float:
    """What the pump thread does with chunks that have been handed to it."""
    fetcher = Fetcher(folder, TOPICS, _Silent())
    topics = [TOPICS.chunk(ref.sha256, index) for index in range(ref.chunks)]

    def pump() -> None:
        fetcher.fetch(ref, time.monotonic())
        for text, chunk in zip(topics, chunks, strict=True):
            topic = TOPICS.parse(text)
            assert isinstance(topic, ChunkTopic)
            said = fetcher.chunk(topic, chunk, time.monotonic())
        assert said == [Fetched(ref.sha256)]

    spent = _timed(pump)
    fetcher.drop(ref.sha256)
    fetcher.close()
    return spent
