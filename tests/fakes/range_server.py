"""A static HTTP server that answers Range, and that can be told to misbehave in every way a mirror may."""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from typing_extensions import Self

Answer = Callable[["Handler", bytes, int, int], None]
"""Given the file and the range that was asked for (`stop` is exclusive), write a response."""


class Handler(BaseHTTPRequestHandler):
    """Answers GET by the server's own `answer`."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        """Serve a range of a file."""
        mirror: RangeServer = self.server.mirror
        mirror.requests.append((self.path, self.headers.get("Range", "")))
        data = mirror.files.get(self.path.rpartition("/")[2])
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if data is None or found is None:
            self.send_error(404)
            return
        try:
            mirror.answer(self, data, int(found[1]), int(found[2]) + 1)
        except ConnectionError:
            self.close_connection = True

    def begin(self, status: int, length: int, **headers: str) -> None:
        """Write status and headers; underscores in names stand for dashes."""
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


def honest(handler: Handler, data: bytes, start: int, stop: int) -> None:
    """What any static server does."""
    handler.begin(206, stop - start, Content_Range=f"bytes {start}-{stop - 1}/{len(data)}")
    handler.wfile.write(data[start:stop])


class RangeServer:
    """Serves blobs on loopback until it is left.

    Args:
        tls: speak HTTPS.

    Attributes:
        files: by their hash.
        answer: how it answers.
        requests: path and range of everything that was asked for.
        links: connections that were opened.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.answer: Answer = honest
        self.requests: list[tuple[str, str]] = []
        self.links = 0
        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.mirror = self
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.base = f"http{'s' if tls else ''}://127.0.0.1:{self._server.server_port}/blobs"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    mirror: RangeServer

    def process_request(self, request: Any, client_address: Any) -> None:
        self.mirror.links += 1
        super().process_request(request, client_address)

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is no news."""
