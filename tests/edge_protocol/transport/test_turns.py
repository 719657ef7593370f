"""A turn of the network thread: what it waits for, who may wake it, and what it makes of a connection that is gone."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

import pytest

from edge_protocol.transport.turns import READS, Bell, turn

LONG_S = 60.0
"""Nothing here waits for so long unless it is broken."""


@pytest.fixture
def bell() -> Iterator[Bell]:
    """A bell of this thread."""
    with closing(Bell()) as made:
        yield made


@pytest.fixture
def link() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection: our end and the peer's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


Link = tuple[socket.socket, socket.socket]


def rings(bell: Bell) -> threading.Thread:
    """Ring from another thread."""
    thread = threading.Thread(target=bell.ring)
    thread.start()
    return thread


def test_another_thread_ends_the_wait_and_there_is_nothing_to_read(bell: Bell, link: Link) -> None:
    """A ring wakes who waits, once however often it rang, and is not taken for bytes from the broker."""
    for thread in [rings(bell), rings(bell)]:
        thread.join()
    assert not bell.wait(link[0], LONG_S, write=False)
    link[1].send(b"x")
    assert bell.wait(link[0], LONG_S, write=False)


def test_bytes_of_the_peer_and_its_end_are_both_to_be_read(bell: Bell, link: Link) -> None:
    """A peer that is gone is found by reading."""
    link[1].send(b"x")
    assert bell.wait(link[0], LONG_S, write=True)
    link[0].recv(1)
    assert not bell.wait(link[0], LONG_S, write=True)
    link[1].close()
    assert bell.wait(link[0], LONG_S, write=True)


def test_the_own_thread_needs_no_bell(bell: Bell, link: Link) -> None:
    """Nor does one that rang after the end fail."""
    bell.ring()
    assert not bell.wait(link[0], 0.0, write=False)
    bell.close()
    rings(bell).join()


@dataclass
class Held:
    """A socket of TLS that holds bytes of its own."""

    link: socket.socket

    def fileno(self) -> int:
        """The descriptor."""
        return self.link.fileno()

    def pending(self) -> int:
        """Bytes that are decrypted already."""
        return 5


def test_bytes_that_tls_holds_are_read_without_waiting(bell: Bell, link: Link) -> None:
    """The socket below is silent, and nobody waits for it."""
    assert bell.wait(Held(link[0]), LONG_S, write=False)


@dataclass
class Scripted:
    """A client of paho's shape that notes what is called."""

    link: socket.socket | None
    queued: bool = False
    read: int = 0
    called: list[str] = field(default_factory=list)

    def socket(self) -> socket.socket | None:
        """The socket."""
        return self.link

    def want_write(self) -> bool:
        """Whether something is queued."""
        return self.queued

    def loop_read(self) -> int:
        """Read a byte; what comes is acknowledged."""
        assert self.link is not None
        self.link.recv(1)
        self.called.append("read")
        self.queued = True
        return self.read

    def deliver(self) -> None:
        """Hand on what was read."""
        self.called.append("deliver")

    def loop_write(self) -> int:
        """Write."""
        self.called.append("write")
        return 0

    def loop_misc(self) -> int:
        """Keep alive; 4 without a connection."""
        self.called.append("misc")
        return 0 if self.link else 4


def test_all_that_has_come_is_read_and_acknowledged_in_one_turn(bell: Bell, link: Link) -> None:
    """The acknowledgements wait for the delivery, and not for another turn."""
    link[1].send(b"abc")
    client = Scripted(link[0])
    assert turn(client, bell, client.deliver) == 0
    assert client.called == ["read", "read", "read", "deliver", "write", "misc"]


def test_a_peer_that_never_stops_is_acknowledged_and_kept_alive_all_the_same(bell: Bell, link: Link) -> None:
    """A turn reads only so many packets."""
    link[1].send(bytes(2 * READS))
    client = Scripted(link[0])
    assert turn(client, bell, client.deliver) == 0
    assert client.called == [*["read"] * READS, "deliver", "write", "misc"]


def test_a_connection_that_is_gone_ends_the_turn_with_its_code(bell: Bell, link: Link) -> None:
    """What came before a fault is delivered, nothing is written after it; without a socket nobody waits."""
    link[1].send(b"x")
    client = Scripted(link[0], read=7)
    assert turn(client, bell, client.deliver) == 7
    assert client.called == ["read", "deliver"]
    assert turn(Scripted(None), bell, lambda: None) == 4
