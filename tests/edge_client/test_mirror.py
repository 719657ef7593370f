"""An HTTP mirror: cut anywhere it is gone on with, and whatever it does in its place ends as a reason."""

from __future__ import annotations

import random
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_client.mirror import REDIRECTS, RUN, Mirror
from edge_protocol.blobs import BlobRef, cut
from edge_protocol.errors import ConfigError
from tests.fakes.certificates import Authority
from tests.fakes.range_server import Answer, Handler, RangeServer, honest
from tests.fakes.waiting import wait_for

DATA = random.Random(6).randbytes(200_123)
REF, CHUNKS = cut(DATA, 4096)


class Got:
    """A mirror of one server, and what it delivered."""

    def __init__(self, server: RangeServer, ca_file: str | None = None, *, patient: bool = False) -> None:
        self.chunks: dict[int, bytes] = {}
        self.repeated = 0
        self.mirror = Mirror(server.base, self._take, ca_file, patient=patient)

    def _take(self, ref: BlobRef, index: int, data: bytes) -> None:
        assert ref == REF
        self.repeated += index in self.chunks
        self.chunks[index] = data

    def all(self) -> bytes:
        """Ask for every chunk and wait for it."""
        self.mirror.ask(REF, range(REF.chunks))
        wait_for(lambda: len(self.chunks) == REF.chunks or self.mirror.failure(), "blob")
        assert not self.mirror.failure()
        return b"".join(self.chunks[index] for index in range(REF.chunks))

    def failure(self) -> str:
        """Ask for every chunk and wait for the reason why they do not come."""
        self.mirror.ask(REF, range(REF.chunks))
        return wait_for(self.mirror.failure, "failure")


@pytest.fixture
def server() -> Iterator[RangeServer]:
    """A server that has the blob."""
    with RangeServer() as made:
        made.files[REF.sha256] = DATA
        yield made


@pytest.fixture
def got(server: RangeServer) -> Iterator[Got]:
    """A mirror of it."""
    made = Got(server)
    yield made
    made.mirror.close()


def test_chunks_come_in_few_requests_over_one_connection(server: RangeServer, got: Got) -> None:
    """Neighbours share a request; what was asked for by itself comes by itself."""
    got.mirror.ask(REF, [7])
    wait_for(lambda: 7 in got.chunks and not got.mirror._busy, "chunk")
    got.mirror.withdraw()
    assert got.all() == DATA
    assert got.mirror.bytes_down == len(DATA) + 4096
    assert len(server.requests) <= 2 + REF.chunks // RUN + 1
    assert server.links == 1


@pytest.mark.parametrize("seed", range(4))
def test_a_response_cut_at_any_byte_is_gone_on_with_at_that_byte(server: RangeServer, got: Got, seed: int) -> None:
    """Content-Length promises all of it, the connection ends early; no byte that came is asked for again."""
    dice = random.Random(seed)

    def cutting(handler: Handler, data: bytes, start: int, stop: int) -> None:
        handler.begin(206, stop - start, Content_Range=f"bytes {start}-{stop - 1}/{len(data)}")
        handler.wfile.write(data[start : start + dice.randrange(1, stop - start + 1)])
        handler.close_connection = True

    server.answer = cutting
    assert got.all() == DATA
    assert got.mirror.bytes_down == len(DATA)
    assert not got.repeated


def test_a_server_that_gives_less_than_asked_for_is_asked_for_the_rest(server: RangeServer, got: Got) -> None:
    """RFC 9110 lets it."""
    server.answer = lambda handler, data, start, stop: honest(handler, data, start, min(stop, start + 5000))
    assert got.all() == DATA
    assert server.links == 1


def test_an_idle_connection_that_the_server_closed_is_opened_again(server: RangeServer, got: Got) -> None:
    """Servers close what is idle; that is no failure."""
    answers = iter([1, 0] + [0] * 100)

    def closing(handler: Handler, data: bytes, start: int, stop: int) -> None:
        honest(handler, data, start, stop)
        handler.close_connection = bool(next(answers))

    server.answer = closing
    got.mirror.ask(REF, [0])
    wait_for(lambda: 0 in got.chunks, "chunk")
    assert got.all() == DATA


def status(code: int) -> Answer:
    """Answer with a status and nothing else."""
    return lambda handler, data, start, stop: handler.begin(code, 0)


def told(content_range: str) -> Answer:
    """Lie about the range."""

    def answer(handler: Handler, data: bytes, start: int, stop: int) -> None:
        handler.begin(206, stop - start, Content_Range=content_range)
        handler.wfile.write(data[start:stop])

    return answer


def redirect(location: str) -> Answer:
    """Send elsewhere."""
    return lambda handler, data, start, stop: handler.begin(302, 0, Location=location)


def junk(handler: Handler, data: bytes, start: int, stop: int) -> None:
    """The right length, other bytes."""
    handler.begin(206, stop - start, Content_Range=f"bytes {start}-{stop - 1}/{len(data)}")
    handler.wfile.write(bytes(stop - start))


def empty(handler: Handler, data: bytes, start: int, stop: int) -> None:
    """The right headers and no byte."""
    handler.begin(206, stop - start, Content_Range=f"bytes {start}-{stop - 1}/{len(data)}")
    handler.close_connection = True


def no_http(handler: Handler, data: bytes, start: int, stop: int) -> None:
    """Another protocol."""
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n" * 3)
    handler.close_connection = True


def endless_header(handler: Handler, data: bytes, start: int, stop: int) -> None:
    """A header line that never ends."""
    handler.wfile.write(b"HTTP/1.1 206 x\r\nA: " + b"a" * 200_000)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (status(404), "status 404"),
        (status(416), "status 416"),
        (status(503), "status 503"),
        (told("bytes 5-9/200123"), "asked for bytes from 0"),
        (told("bytes 0-65535/199999"), "asked for bytes from 0"),
        (told("junk"), "asked for bytes from 0"),
        (redirect(""), "redirected to ''"),
        (redirect("ftp://127.0.0.1/x"), "no HTTP address"),
        (redirect("same"), f"more than {REDIRECTS} redirects"),
        (junk, "does not match its hash"),
        (empty, "sent nothing"),
        (no_http, "SSH"),
        (endless_header, "header line"),
    ],
)
def test_whatever_a_server_does_in_its_place_is_a_reason(
    server: RangeServer, got: Got, answer: Answer, said: str
) -> None:
    """Nothing wrong is delivered, the thread lives, and the mirror serves again when the server does."""
    server.answer = answer
    server.files["same"] = DATA
    assert said in got.failure()
    assert not got.chunks
    server.answer = honest
    got.mirror.withdraw()
    assert got.all() == DATA


def test_a_server_without_range_serves_what_begins_at_the_first_byte(server: RangeServer, got: Got) -> None:
    """And no more: nobody wants to read a file from its start for each run of chunks."""

    def whole(handler: Handler, data: bytes, start: int, stop: int) -> None:
        handler.begin(200, len(data))
        handler.wfile.write(data)

    server.answer = whole
    assert "ignores Range" in got.failure()
    assert sorted(got.chunks) == list(range(RUN))


def test_a_redirect_to_another_server_is_followed(server: RangeServer, got: Got) -> None:
    """As a mirror in front of a content network does; the hashes are the same."""
    with RangeServer() as other:
        other.files[REF.sha256] = DATA
        server.answer = redirect(f"{other.base}/{REF.sha256}")
        assert got.all() == DATA
        assert other.requests


def test_a_server_that_drips_is_left_at_once_when_the_chunks_are_withdrawn(server: RangeServer, got: Got) -> None:
    """Slow loris: in its headers or its body; the thread is free for the next request."""
    release = threading.Event()

    def drip(handler: Handler, data: bytes, start: int, stop: int) -> None:
        handler.wfile.write(b"HTTP/1.1 206 Partial")
        release.wait(60)

    server.answer = drip
    got.mirror.ask(REF, range(REF.chunks))
    wait_for(lambda: server.requests, "request")
    got.mirror.withdraw()
    server.answer = honest
    assert got.all() == DATA
    release.set()


def test_a_server_that_is_not_there_is_a_reason() -> None:
    """Nobody listens."""
    with RangeServer() as server:
        got = Got(server)
    assert got.failure()
    got.mirror.close()


def test_https_is_checked_against_the_certificates_that_are_trusted(tmp_path: Path) -> None:
    """With its authority the blob comes, also when that came later; without it there is a reason."""
    authority, context = Authority(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate, key = authority.issue(tmp_path, "localhost")
    context.load_cert_chain(certificate, key)
    with RangeServer(context) as server:
        server.files[REF.sha256] = DATA
        trusting = Got(server, str(authority.write(tmp_path / "ca.pem")))
        assert trusting.all() == DATA
        trusting.mirror.close()
        doubting = Got(server)
        assert "certificate" in doubting.failure().lower()
        doubting.mirror.close()
        waiting = Got(server, str(tmp_path / "later.pem"), patient=True)
        assert "mirror_ca_file" in waiting.failure()
        waiting.mirror.withdraw()
        authority.write(tmp_path / "later.pem")
        assert waiting.all() == DATA
        waiting.mirror.close()


@pytest.mark.parametrize(
    "base",
    [
        "ftp://x/",
        "x",
        "",
        "http://",
        "http://user:pw@x/",
        "http://x/?a=b",
        "http://x:99999/",
        "http://x/\r\nA: b",
        "http://ä/",
    ],
)
def test_an_address_that_is_none_is_said(base: str) -> None:
    """Before anything is asked of it."""
    with pytest.raises(ConfigError, match="mirror"):
        Mirror(base, lambda *_: None)


def test_certificates_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    """The file is named."""
    with pytest.raises(ConfigError, match="mirror_ca_file"):
        Mirror("https://x/", lambda *_: None, str(tmp_path / "none.pem"))
