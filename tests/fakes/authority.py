"""A real certificate authority in a folder, its enrolment service on loopback, and holders of certificates."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker_server.ca.folder import CaPolicy, CertificateAuthority
from broker_server.ca.service import EnrolmentService
from edge_protocol.identity.files import IdentityFiles
from tests.fakes.clock import FakeClock

NOW = 1_790_000_000.0
HOST = "127.0.0.1"


def make_authority(folder: Path, *, now: float = NOW, passphrase: bytes | None = None) -> CertificateAuthority:
    """Make an authority of the fleet of the tests."""
    return CertificateAuthority.init(folder, CaPolicy(fleet="sim"), None, passphrase, 3650.0, now)


def identity_in(folder: Path) -> IdentityFiles:
    """Where a holder's files lie."""
    return IdentityFiles(folder / "ca.pem", folder / "own.pem", folder / "own.key")


def certified(authority: CertificateAuthority, folder: Path, name: str, now: float = NOW) -> IdentityFiles:
    """Give a holder a certificate, by files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = identity_in(folder)
    files.install(authority.sign(files.request(name), name, (), now), authority.anchors, name)
    return files


@contextmanager
def serving(authority: CertificateAuthority, clock: FakeClock) -> Iterator[str]:
    """Run the enrolment service; yield its address."""
    with EnrolmentService(authority, HOST, 0, [HOST], clock) as service:
        thread = threading.Thread(target=service.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"https://{HOST}:{service.server_address[1]}"
        finally:
            service.shutdown()
            thread.join()
