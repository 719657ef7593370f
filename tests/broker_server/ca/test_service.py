"""The enrolment service against clients that do not keep to the rules; enrolment itself: `edge_protocol/identity`."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from pathlib import Path

import msgspec

from tests.fakes.authority import make_authority, serving
from tests.fakes.clock import FakeClock


def test_the_service_survives_what_is_no_request(tmp_path: Path) -> None:
    """Junk, a huge length, an unknown path, another method and a silent client are refused; the next one is served."""
    clock = FakeClock(time.time())
    authority = make_authority(tmp_path / "ca", now=clock())
    context = ssl.create_default_context(cadata=authority.anchors.decode())
    with serving(authority, clock) as url:
        host, port = url.removeprefix("https://").split(":")

        def ask(method: str, path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
            link = http.client.HTTPSConnection(host, int(port), context=context, timeout=20)
            link.request(method, path, body, headers)
            answer = link.getresponse()
            return answer.status, answer.read()

        with socket.create_connection((host, int(port))) as silent:
            silent.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert ask("POST", "/enrol", b"junk")[0] == 403
            assert ask("POST", "/enrol", b"{}")[0] == 403
            assert ask("POST", "/enrol", msgspec.json.encode({"request": "junk", "secret": "00"}))[0] == 403
            assert ask("POST", "/enrol", b"", **{"Content-Length": "99999999999"})[0] == 403
            assert ask("POST", "/renew", msgspec.json.encode({"request": "junk"}))[0] == 403
            assert ask("POST", "/other", b"")[0] == 404
            assert ask("GET", "/enrol", b"")[0] == 404
            assert ask("PUT", "/enrol", b"")[0] == 501
        assert ask("GET", "/authority", b"")[0] == 200


def test_a_clock_that_was_ahead_does_not_lock_devices_out(tmp_path: Path) -> None:
    """Two days ahead at the start, then right: the next connection is offered a certificate that is valid now."""
    right = time.time()
    authority = make_authority(tmp_path / "ca", now=right)
    clock = FakeClock(right + 2 * 86_400)
    context = ssl.create_default_context(cadata=authority.anchors.decode())
    with serving(authority, clock) as url:
        clock.set(right - clock())
        link = http.client.HTTPSConnection(url.removeprefix("https://"), context=context, timeout=20)
        link.request("GET", "/authority")
        assert link.getresponse().status == 200
