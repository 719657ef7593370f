"""A broker that plays a script, packet by packet (MQTT 3.1.1): for what a well-behaved broker never does."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TypeAlias

from typing_extensions import Self

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT = (
    1, 2, 3, 4, 8, 9, 10, 11, 12, 13, 14,
)  # fmt: skip


@dataclass(frozen=True)
class Packet:
    """One control packet: type, flags and everything after the fixed header."""

    kind: int
    flags: int
    body: bytes

    @property
    def topic(self) -> str:
        """Topic of a PUBLISH."""
        return self.body[2 : 2 + self._topic_bytes].decode()

    @property
    def mid(self) -> int:
        """Packet identifier of a QoS 1 PUBLISH, a SUBSCRIBE or an UNSUBSCRIBE."""
        at = 2 + self._topic_bytes if self.kind == PUBLISH else 0
        return int.from_bytes(self.body[at : at + 2], "big")

    @property
    def payload(self) -> bytes:
        """Payload of a QoS 1 PUBLISH."""
        return self.body[4 + self._topic_bytes :]

    @property
    def duplicate(self) -> bool:
        """Whether a PUBLISH says that it was sent before."""
        return bool(self.flags & 8)

    @property
    def filters(self) -> list[str]:
        """Filters of a SUBSCRIBE."""
        found, at = [], 2
        while at < len(self.body):
            size = int.from_bytes(self.body[at : at + 2], "big")
            found.append(self.body[at + 2 : at + 2 + size].decode())
            at += 3 + size
        return found

    @property
    def _topic_bytes(self) -> int:
        return int.from_bytes(self.body[:2], "big")


class Link:
    """One client's connection, as its script sees it."""

    def __init__(self, raw: socket.socket, number: int) -> None:
        self.raw, self.number = raw, number
        self.seen: list[Packet] = []

    def read(self) -> Packet:
        """Take the client's next packet; EOFError when it has gone."""
        first = self._exactly(1)[0]
        size = shift = 0
        while True:
            byte = self._exactly(1)[0]
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        packet = Packet(first >> 4, first & 15, self._exactly(size))
        self.seen.append(packet)
        return packet

    def expect(self, kind: int) -> Packet:
        """Take packets until one is of a kind, answering pings."""
        while (packet := self.read()).kind != kind:
            if packet.kind == PINGREQ:
                self.send(PINGRESP)
        return packet

    def send(self, kind: int, body: bytes = b"", flags: int = 0) -> None:
        """Send one packet."""
        size, header = len(body), bytearray([kind << 4 | flags])
        while True:
            size, low = divmod(size, 128)
            header.append(low | (128 if size else 0))
            if not size:
                break
        self.raw.sendall(bytes(header) + body)

    def accept(self, code: int = 0) -> Packet:
        """Take CONNECT and answer with CONNACK `code`."""
        connect = self.expect(CONNECT)
        self.send(CONNACK, bytes([0, code]))
        return connect

    def grant(self, *, code: int = 1) -> Packet:
        """Take SUBSCRIBE and answer every filter with `code` (0x80 denies)."""
        packet = self.expect(SUBSCRIBE)
        self.send(SUBACK, packet.body[:2] + bytes([code]) * len(packet.filters))
        return packet

    def ack(self, packet: Packet) -> None:
        """Acknowledge a PUBLISH."""
        self.send(PUBACK, struct.pack(">H", packet.mid))

    def publish(self, topic: str, payload: bytes, *, mid: int = 1, duplicate: bool = False) -> None:
        """Send a message at QoS 1; its PUBACK is not awaited."""
        name = topic.encode()
        body = struct.pack(">H", len(name)) + name + struct.pack(">H", mid) + payload
        self.send(PUBLISH, body, flags=2 | (8 if duplicate else 0))

    def hold(self) -> None:
        """Keep the link open, answering pings, until the client leaves."""
        with contextlib.suppress(EOFError, OSError):
            self.expect(DISCONNECT)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.raw.recv(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data


Script: TypeAlias = Callable[[Link], None]


@dataclass
class ScriptedBroker:
    """Plays `script` on each connection, in a thread of its own.

    Attributes:
        script: gets the link; `link.number` counts connections from 1.
        links: every connection so far.
        errors: what scripts raised, but for a client that left.
    """

    script: Script
    links: list[Link] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    port: int = 0

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link in self.links:
            with contextlib.suppress(OSError):
                link.raw.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(5)
        assert not self.errors, f"a script failed: {self.errors}"

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            link = Link(raw, len(self.links) + 1)
            self.links.append(link)
            self._threads.append(threading.Thread(target=self._play, args=(link,), daemon=True))
            self._threads[-1].start()

    def _play(self, link: Link) -> None:
        with link.raw:
            try:
                self.script(link)
            except (EOFError, OSError):
                pass
            except BaseException as error:  # noqa: BLE001  reported when the test ends
                self.errors.append(error)
