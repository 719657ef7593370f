"""Chunks of blobs by HTTP(S) Range from a folder that any static server serves; owns the connection, and no file.

A blob lies at ``<base>/<sha256>``. Chunks that are asked for together come in one request; a response that ends early
is gone on with at the byte where it ended. Each chunk is checked here, so whatever a mirror sends in its place ends as
a reason, not as a chunk. The thread never raises; it waits on nothing for longer than `SOCKET_S`.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

from edge_client.fetch_policy import check_address
from edge_protocol.blobs import BlobRef
from edge_protocol.errors import ArtifactError, ConfigError, TransportError

SOCKET_S: Final = 20.0
"""Longest wait for a connection, or for the next bytes on it."""
REDIRECTS: Final = 5
RUN: Final = 16
"""Chunks in one request at most."""
_BLOCK: Final = 64 * 1024
_RANGE: Final = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15}|\*)")
_STALE: Final = (ConnectionError, HTTPException)
Deliver = Callable[[BlobRef, int, bytes], None]


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighbouring chunks of one blob; `stop` is the first one beyond."""

    ref: BlobRef
    first: int
    stop: int
    generation: int


class Mirror:
    """One HTTP source of blobs; its thread starts with the first chunk that is asked for.

    Args:
        base: address of the folder.
        deliver: takes a checked chunk, in the mirror's thread.
        ca_file: PEM certificates to trust in place of the system's.
        patient: take a file of them that is still to come, with enrolment: nothing is fetched before it is there.

    Attributes:
        bytes_down: payload bytes received so far.

    Raises:
        ConfigError: the address or the certificates cannot be used.
    """

    def __init__(self, base: str, deliver: Deliver, ca_file: str | None = None, *, patient: bool = False) -> None:
        self.bytes_down = 0
        self._base, self._deliver = check_address(base), deliver
        awaited = patient and ca_file is not None and not Path(ca_file).exists()
        self._ca_file = ca_file
        self._tls = _tls(ca_file) if (ca_file or self._base.startswith("https:")) and not awaited else None
        self._changed = threading.Condition()  # guards the six below
        self._wanted: dict[int, BlobRef] = {}
        self._generation = 0
        self._failure = ""
        self._busy = False
        self._closed = False
        self._thread: threading.Thread | None = None
        self._connection: HTTPConnection | None = None
        self._leads_to = (False, "", 0)

    def ask(self, ref: BlobRef, indices: Iterable[int]) -> None:
        """Want chunks of a blob; of one blob at a time."""
        with self._changed:
            self._wanted.update(dict.fromkeys(indices, ref))
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)
                self._thread.start()
            self._changed.notify()

    def withdraw(self) -> None:
        """Want nothing any more; a response under way is cut off."""
        with self._changed:
            self._wanted.clear()
            self._generation += 1
            self._failure = ""
            connection = self._connection if self._busy else None
        link = connection.sock if connection is not None else None
        if link is not None:
            with suppress(OSError):
                socket.socket.shutdown(link, socket.SHUT_RDWR)  # an SSLSocket's own is not made for two threads

    def failure(self) -> str:
        """Why the mirror delivers nothing of what it was asked for, "" while it does."""
        with self._changed:
            return self._failure

    def close(self) -> None:
        """End the thread; it may take up to `SOCKET_S` to be gone."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self.withdraw()

    def _work(self) -> None:
        while (run := self._next()) is not None:
            self._try(run)
        self._hang_up()

    def _try(self, run: _Run) -> None:
        try:
            self._fetch(run)
        except Exception as error:  # noqa: BLE001 - whatever a server sends, the broker is there to go on with
            self._hang_up()
            with self._changed:
                if run.generation == self._generation:
                    self._wanted.clear()
                    self._failure = str(error) or repr(error)

    def _next(self) -> _Run | None:
        with self._changed:
            self._busy = False
            while not self._wanted and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            first = stop = next(iter(self._wanted))
            ref = self._wanted[first]
            while stop in self._wanted and stop - first < RUN:
                del self._wanted[stop]
                stop += 1
            self._busy = True
            return _Run(ref, first, stop, self._generation)

    def _fetch(self, run: _Run) -> None:
        ref = run.ref
        at, end = run.first * ref.chunk_bytes, min(run.stop * ref.chunk_bytes, ref.size)
        chunk, index = bytearray(), run.first
        while at < end and run.generation == self._generation:
            begun, response = at, self._open(ref, at, end)
            while at < end and run.generation == self._generation:
                edge = min((index + 1) * ref.chunk_bytes, ref.size)
                block = response.read1(min(edge - at, _BLOCK))
                if not block:
                    break
                chunk += block
                at += len(block)
                self.bytes_down += len(block)
                if at == edge:
                    self._hand_over(run, index, bytes(chunk))
                    chunk.clear()
                    index += 1
            if response.length == 0:
                response.close()  # the connection stays open for the next run
            else:
                self._hang_up()
            if at == begun:
                raise TransportError(f"{self._base}{ref.sha256[:12]}: the mirror sent nothing from byte {at} on")

    def _hand_over(self, run: _Run, index: int, data: bytes) -> None:
        run.ref.check_chunk(index, data)
        if run.generation == self._generation:
            self._deliver(run.ref, index, data)

    def _open(self, ref: BlobRef, at: int, end: int) -> HTTPResponse:
        """Ask for bytes `at` to `end` (exclusive); return a response that begins at `at`."""
        address = self._base + ref.sha256
        for _ in range(REDIRECTS + 1):
            response = self._request(urlsplit(address), at, end)
            if response.status not in {301, 302, 303, 307, 308}:
                _check_range(response, ref, at, address)
                return response
            address = self._redirected(address, response.headers.get("Location", ""))
            self._hang_up()
        raise TransportError(f"{address}: more than {REDIRECTS} redirects")

    def _request(self, place: SplitResult, at: int, end: int) -> HTTPResponse:
        headers = {"Range": f"bytes={at}-{end - 1}", "Accept-Encoding": "identity"}
        path = place.path + (f"?{place.query}" if place.query else "")
        connection, reused = self._connect(place)
        try:
            connection.request("GET", path, headers=headers)
            return connection.getresponse()
        except _STALE:
            self._hang_up()
            if not reused:
                raise
        connection, _ = self._connect(place)
        connection.request("GET", path, headers=headers)
        return connection.getresponse()

    def _connect(self, place: SplitResult) -> tuple[HTTPConnection, bool]:
        """The open connection, when it leads there; else a new one. A server may close one that was idle."""
        tls, open_one = place.scheme == "https", self._connection
        host, port = place.hostname or "", place.port or (443 if tls else 80)
        if open_one is not None and open_one.sock is not None and self._leads_to == (tls, host, port):
            return open_one, True
        self._hang_up()
        made = (
            HTTPSConnection(host, port, timeout=SOCKET_S, context=self._tls or _tls(self._ca_file))
            if tls
            else HTTPConnection(host, port, timeout=SOCKET_S)
        )
        self._connection, self._leads_to = made, (tls, host, port)
        return made, False

    def _redirected(self, address: str, location: str) -> str:
        target = urljoin(address, location)
        if not location or urlsplit(target).scheme not in {"https", urlsplit(address).scheme}:
            raise TransportError(f"{address}: redirected to {location[:200]!r}, which is no HTTP address or less safe")
        return target

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _tls(ca_file: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ConfigError(f"fetch: cannot use mirror_ca_file {ca_file}: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _check_range(response: HTTPResponse, ref: BlobRef, at: int, address: str) -> None:
    """Accept a part that begins where it was asked for, or the whole where that is asked for."""
    if response.status == HTTPStatus.OK and at == 0:
        return
    if response.status == HTTPStatus.OK:
        raise TransportError(f"{address}: the server ignores Range; any server with Range requests will do")
    if response.status != HTTPStatus.PARTIAL_CONTENT:
        raise TransportError(f"{address}: HTTP status {response.status} {response.reason[:80]}")
    told = response.headers.get("Content-Range", "")
    found = _RANGE.fullmatch(told)
    if found is None or int(found[1]) != at or found[3] not in {"*", str(ref.size)}:
        raise ArtifactError(f"{address}: asked for bytes from {at} of {ref.size}, got {told[:80]!r}")
