"""One turn of a network thread: wait for the socket or for another thread, read what has come, write what is queued.

Takes the place of paho's own loop, which costs a second `select` and three system calls for every message received:
it wakes itself through a pair of sockets to send the acknowledgement. Owns no link, and knows of paho only its shape.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from contextlib import suppress
from threading import get_ident
from typing import Any, Final, Protocol

TURN_S: Final = 0.5
"""How long a turn waits at most, so that keepalives are sent in time."""
READS: Final = 8
"""Packets read in a turn at most; fewer than a broker sends unacknowledged (20 in Mosquitto), or it waits for us."""


class Pollable(Protocol):
    """A socket, of TLS or not."""

    def fileno(self) -> int:
        """Its descriptor, -1 when it is closed."""
        ...


class Loopable(Protocol):
    """The part of a paho client that whoever brings a loop of their own has to call."""

    def socket(self) -> Pollable | None:
        """The socket, None when there is no connection."""
        ...

    def want_write(self) -> bool:
        """Whether packets are queued."""
        ...

    def loop_read(self) -> int:
        """Read at most one packet and handle it; 0 when all is well."""
        ...

    def loop_write(self) -> int:
        """Write queued packets, as many as the socket takes."""
        ...

    def loop_misc(self) -> int:
        """Keep the connection alive; not 0 when there is none."""
        ...


class Bell:
    """Wakes the thread that made it from its wait for a socket; any other thread may ring."""

    def __init__(self) -> None:
        self._owner = get_ident()
        self._heard, self._rung = socket.socketpair()
        self._heard.settimeout(0)
        self._rung.settimeout(0)
        self._poll = select.poll()  # select() takes no descriptor above 1,023
        self._poll.register(self._heard, select.POLLIN)
        self._watched = (-1, 0)

    def ring(self, *_: Any) -> None:  # noqa: ANN401  as paho's callback on_socket_register_write declares it
        """Something was queued. A bell that is full or put away need not ring."""
        if get_ident() != self._owner:
            with suppress(OSError):
                self._rung.send(b"\0")

    def wait(self, link: Pollable, timeout_s: float, *, write: bool) -> bool:
        """Wait until a socket can be read, can be written if `write`, or the bell rings; return whether to read."""
        pending = getattr(link, "pending", None)
        readable = pending is not None and pending() > 0  # bytes that TLS has taken from the socket already
        at = link.fileno()
        watched = (at, select.POLLIN | select.POLLOUT if write else select.POLLIN)
        if watched != self._watched:
            self._poll.register(*watched)
            self._watched = watched
        for descriptor, what in self._poll.poll(0 if readable else 1e3 * timeout_s):
            if descriptor == at:
                readable = readable or what != select.POLLOUT
            else:
                self._heard.recv(4096)
        return readable

    def close(self) -> None:
        """Put the bell away."""
        self._heard.close()
        self._rung.close()


def turn(client: Loopable, bell: Bell, deliver: Callable[[], None]) -> int:
    """Wait at most `TURN_S`, read what has come, have it delivered, write its acknowledgements.

    Returns:
        paho's code, 0 while the connection is up.
    """
    code, patience_s, write = 0, TURN_S, client.want_write()
    try:
        for _ in range(READS):
            link = client.socket()
            if code or link is None or not bell.wait(link, patience_s, write=write):
                break
            code, patience_s = client.loop_read(), 0.0
    finally:
        deliver()
    if not code and client.want_write():
        code = client.loop_write()
    return code or client.loop_misc()


def send_at_once(_client: Any, _userdata: Any, link: Any) -> None:  # noqa: ANN401  as paho declares it
    """Turn Nagle's algorithm off: a small message would wait up to 40 ms for the acknowledgement of the one before."""
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
