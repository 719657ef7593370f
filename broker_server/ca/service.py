"""The enrolment service: HTTPS over the standard library, three paths, JSON in and out. Owns no decision.

``GET /authority``   the authority's certificates, for whoever holds their hash
``POST /enrol``      a token's secret and a request → a certificate
``POST /renew``      a request, over a connection that shows the present certificate → the next one
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
from cryptography import x509

from broker_server.ca.folder import CertificateAuthority
from broker_server.ca.issuing import ENROLMENT
from broker_server.periods import NEVER, over
from edge_protocol.errors import CheckFailedError, ConfigError, NotReadyError, ProtocolError, StoreError
from edge_protocol.identity.certificates import make_key, make_request
from edge_protocol.identity.enrolment import MAX_BODY_BYTES, EnrolAnswer, EnrolRequest

TIMEOUT_S: Final = 10.0
MAX_AT_ONCE: Final = 64
"""Connections served at once; more wait, and each is closed after `TIMEOUT_S`, whatever it does."""

log = logging.getLogger(__name__)


class EnrolmentService(ThreadingHTTPServer):
    """The service on one address. Use it as a context manager; `serve_forever` answers.

    Args:
        authority: decides and signs.
        bind: address to listen on.
        port: TCP port; 0 takes a free one.
        hosts: names and addresses under which holders reach it.
        clock: seconds since 1970.

    Raises:
        NotReadyError: the port cannot be had.
    """

    daemon_threads = True
    request_queue_size = MAX_AT_ONCE

    def __init__(
        self, authority: CertificateAuthority, bind: str, port: int, hosts: list[str], clock: Callable[[], float]
    ) -> None:
        self.authority, self.clock = authority, clock
        self._hosts, self._tls_since = hosts, NEVER
        self._slots, self._lock = threading.BoundedSemaphore(MAX_AT_ONCE), threading.Lock()
        self.context()
        try:
            super().__init__((bind, port), _Handler)
        except OSError as error:
            raise NotReadyError(f"enrolment service on {bind}:{port}: {error.strerror}; choose another port") from error

    def context(self) -> ssl.SSLContext:
        """TLS with a certificate of the authority's own, made anew after half of its life, or a clock set back."""
        with self._lock:
            now, life_s = self.clock(), self.authority.policy.service_days * 86_400
            if over(self._tls_since, life_s / 2, now):
                self._tls, self._tls_since = self._make_context(now), now
            return self._tls

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  as socketserver has it
        """Give a connection a thread, when there is one."""
        if self._slots.acquire(timeout=TIMEOUT_S):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  as socketserver has it
        """Answer one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401, ARG002  as socketserver has it
        """Note a connection that broke off, or spoke no TLS."""
        log.debug("%s: connection ended early", client_address)

    def _make_context(self, now: float) -> ssl.SSLContext:
        key = make_key()
        chain = self.authority.sign(make_request(key, ENROLMENT), ENROLMENT, self._hosts, now)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(cadata=self.authority.anchors.decode())
        context.verify_mode = ssl.CERT_OPTIONAL
        with TemporaryDirectory() as folder:  # ssl reads keys from files only
            file = Path(folder) / "tls.pem"
            file.touch(0o600)
            file.write_bytes(key + chain)
            context.load_cert_chain(file)
        return context


class _Handler(BaseHTTPRequestHandler):
    """One connection, one request."""

    server: EnrolmentService
    timeout = TIMEOUT_S
    server_version = "roadcast"
    sys_version = ""

    def setup(self) -> None:
        """Speak TLS, and no longer than `TIMEOUT_S` in all."""
        self.request.settimeout(TIMEOUT_S)
        self.request = self.server.context().wrap_socket(self.request, server_side=True, do_handshake_on_connect=False)
        self._end = threading.Timer(TIMEOUT_S, _cut, [self.request])
        self._end.daemon = True
        self._end.start()
        super().setup()

    def handle(self) -> None:
        """Shake hands, then answer."""
        self.request.do_handshake()
        super().handle()

    def finish(self) -> None:
        """Leave."""
        self._end.cancel()
        try:
            super().finish()
        finally:
            self.request.close()

    def do_GET(self) -> None:
        """Tell what to trust."""
        if self.path != "/authority":
            self._say(404, EnrolAnswer(refused="no such path"))
            return
        self._say(200, EnrolAnswer(authority=self.server.authority.anchors.decode()))

    def do_POST(self) -> None:
        """Enrol or renew."""
        try:
            act = {"/enrol": self._enrol, "/renew": self._renew}[self.path]
            name, chain = act(self._body())
        except KeyError:
            self._say(404, EnrolAnswer(refused="no such path"))
        except (CheckFailedError, ProtocolError) as error:
            log.warning("%s: refused: %s", self.client_address[0], error)
            self._say(403, EnrolAnswer(refused=str(error)[:1000]))
        except (StoreError, ConfigError) as error:
            log.error("%s: %s", self.client_address[0], error)  # noqa: TRY400 - no trace needed
            self._say(503, EnrolAnswer(refused="the authority cannot sign now; its operator's log says why"))
        else:
            log.info("%s: certified %s", self.client_address[0], name)
            self._say(200, EnrolAnswer(chain.decode(), self.server.authority.anchors.decode()))

    def _enrol(self, asked: EnrolRequest) -> tuple[str, bytes]:
        return self.server.authority.enrol(bytes.fromhex(asked.secret), asked.request.encode(), self.server.clock())

    def _renew(self, asked: EnrolRequest) -> tuple[str, bytes]:
        shown = self.request.getpeercert(binary_form=True)
        if not shown:
            raise CheckFailedError("a renewal shows the present certificate; enrol with a token instead")
        present = x509.load_der_x509_certificate(shown)
        return "again", self.server.authority.renew(present, asked.request.encode(), self.server.clock())

    def _body(self) -> EnrolRequest:
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or int(length) > MAX_BODY_BYTES:
            raise CheckFailedError(f"the body must have a length of at most {MAX_BODY_BYTES} bytes")
        try:
            return msgspec.json.decode(self.rfile.read(int(length)), type=EnrolRequest)
        except (msgspec.MsgspecError, ValueError) as error:
            raise CheckFailedError(f"the body is no enrolment request: {error}") from error

    def _say(self, status: int, answer: EnrolAnswer) -> None:
        body = msgspec.json.encode(answer)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002, ANN401  as http.server has it
        """Keep requests out of the log of a service that nothing is wrong with."""
        log.debug(format, *arguments)


def _cut(link: ssl.SSLSocket) -> None:
    with suppress(OSError):
        link.shutdown(socket.SHUT_RDWR)
