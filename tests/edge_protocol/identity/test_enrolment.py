"""Enrolment and renewal over real TLS: only the token's authority, once, and safe against a crash at any step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_server.ca.folder import CertificateAuthority
from edge_protocol.errors import CheckFailedError, ConfigError, TransportError
from edge_protocol.identity.certificates import belongs
from edge_protocol.identity.enrolment import enrol, renew
from edge_protocol.identity.files import IdentityFiles
from tests.fakes.authority import certified, identity_in, make_authority, serving
from tests.fakes.clock import FakeClock

DAY_S = 86_400


@pytest.fixture
def clock() -> FakeClock:
    """The authority's clock; TLS reads the real one, so it begins there."""
    return FakeClock(time.time())


@pytest.fixture
def authority(tmp_path: Path, clock: FakeClock) -> CertificateAuthority:
    """An authority."""
    return make_authority(tmp_path / "ca", now=clock())


@pytest.fixture
def url(authority: CertificateAuthority, clock: FakeClock) -> Iterator[str]:
    """Its service."""
    with serving(authority, clock) as address:
        yield address


def _holder(folder: Path) -> IdentityFiles:
    folder.mkdir(exist_ok=True)
    return identity_in(folder)


def test_a_token_becomes_a_certificate_and_again_changes_nothing(
    authority: CertificateAuthority, url: str, clock: FakeClock, tmp_path: Path
) -> None:
    """The device ends up with a pair, the authority to trust and the address; the same command again keeps them."""
    files, token = _holder(tmp_path / "cam"), authority.token("cam-1", url, 3600, clock()).text()
    enrol(files, "cam-1", token)
    held = files.held()
    assert held is not None
    assert belongs(files.key.read_bytes(), held)
    assert files.ca.read_bytes() == authority.anchors
    enrol(files, "cam-1", token)
    assert files.held() == held
    assert [c.name for c in authority.ledger.certificates()] == ["enrolment", "cam-1"]


def test_a_replayed_a_late_and_a_foreign_token_are_refused(
    authority: CertificateAuthority, url: str, clock: FakeClock, tmp_path: Path
) -> None:
    """Each refusal says which; nothing is installed."""
    token = authority.token("cam-1", url, 3600, clock()).text()
    enrol(_holder(tmp_path / "cam"), "cam-1", token)
    thief = _holder(tmp_path / "thief")
    with pytest.raises(CheckFailedError, match="used, by another key"):
        enrol(thief, "cam-1", token)
    with pytest.raises(CheckFailedError, match="for 'cam-1', this is 'cam-2'"):
        enrol(thief, "cam-2", token)
    late = authority.token("cam-3", url, 3600, clock()).text()
    clock.advance(3601)
    with pytest.raises(CheckFailedError, match="expired"):
        enrol(thief, "cam-3", late)
    assert thief.held() is None


def test_an_impostor_of_the_authority_gets_no_secret(
    authority: CertificateAuthority, clock: FakeClock, tmp_path: Path
) -> None:
    """Another authority at the token's address is told by its hash, before the secret is sent."""
    other = make_authority(tmp_path / "other", now=clock())
    with serving(other, clock) as address:
        token = authority.token("cam-1", address, 3600, clock()).text()
        with pytest.raises(CheckFailedError, match="not the authority"):
            enrol(_holder(tmp_path / "cam"), "cam-1", token)
    with pytest.raises(TransportError, match="cannot be reached"):
        enrol(_holder(tmp_path / "cam"), "cam-1", token)


def test_a_man_in_the_middle_with_the_right_certificates_gets_no_secret(
    authority: CertificateAuthority, url: str, clock: FakeClock, tmp_path: Path
) -> None:
    """Who shows the authority's certificates but a TLS certificate for another address is left before the secret."""
    token = authority.token("cam-1", url.replace("127.0.0.1", "localhost"), 3600, clock()).text()
    with pytest.raises(CheckFailedError, match="for that address"):
        enrol(_holder(tmp_path / "cam"), "cam-1", token)


def test_a_renewal_brings_a_new_key_when_it_is_due(
    authority: CertificateAuthority, url: str, clock: FakeClock, tmp_path: Path
) -> None:
    """In the last third of its life, or when forced, a certificate is replaced, with its key; before it is not."""
    files = _holder(tmp_path / "cam")
    enrol(files, "cam-1", authority.token("cam-1", url, 3600, clock()).text())
    held, key = files.held(), files.key.read_bytes()
    assert not renew(files, "cam-1", clock() + 59 * DAY_S)
    assert files.held() == held
    assert renew(files, "cam-1", clock() + 61 * DAY_S)
    assert files.held() != held
    assert files.key.read_bytes() != key
    with pytest.raises(ConfigError, match="expired"):
        renew(files, "cam-1", clock() + 100 * DAY_S)


def test_a_renewal_is_refused_to_the_revoked_and_to_those_who_ask_for_another(
    authority: CertificateAuthority, url: str, clock: FakeClock, tmp_path: Path
) -> None:
    """A revoked certificate renews nothing; a valid one renews its own name only, and none renews nothing."""
    files = _holder(tmp_path / "cam")
    with pytest.raises(ConfigError, match="no certificate to renew"):
        renew(files, "cam-1", clock(), force=True)
    enrol(files, "cam-1", authority.token("cam-1", url, 3600, clock()).text())
    with pytest.raises(CheckFailedError, match="of 'cam-1', the request for 'cam-2'"):
        renew(files, "cam-2", clock(), force=True)
    authority.ledger.revoke("cam-1", clock(), "stolen")
    files.next_key.unlink()
    with pytest.raises(CheckFailedError, match="revoked"):
        renew(files, "cam-1", clock(), force=True)


def test_a_certificate_that_came_by_files_says_how_to_renew_it(
    authority: CertificateAuthority, clock: FakeClock, tmp_path: Path
) -> None:
    """Without an address there is no renewal over the network."""
    with pytest.raises(ConfigError, match="--csr-out"):
        renew(certified(authority, tmp_path / "cam", "cam-1", clock()), "cam-1", clock(), force=True)


KILLED = """
import os, signal, sys
from pathlib import Path
from edge_protocol import files as disk
from edge_protocol.identity import enrolment
from edge_protocol.identity.files import IdentityFiles
left, folder = int(sys.argv[1]), Path(sys.argv[2])
def trace(frame, event, argument):
    global left
    if event == "call" and frame.f_code.co_name in ("write_atomic", "rename", "_ask", "sync_folder"):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.setprofile(trace)
enrolment.enrol(IdentityFiles(folder / "ca.pem", folder / "own.pem", folder / "own.key"), "cam-1", sys.argv[3])
"""


def test_killed_at_any_step_the_same_token_still_does(
    authority: CertificateAuthority, url: str, clock: FakeClock, tmp_path: Path
) -> None:
    """A process that is killed before its n-th write, rename or request is followed by one that gets it."""
    for step in range(0, 100, 2):
        files, token = _holder(tmp_path / f"cam-{step}"), authority.token("cam-1", url, 3600, clock()).text()
        command = [sys.executable, "-c", KILLED, str(step), str(files.key.parent), token]
        ended = subprocess.run(command, env=os.environ, check=False).returncode
        assert ended in {0, -signal.SIGKILL}
        enrol(files, "cam-1", token)
        held = files.held()
        assert held is not None
        assert belongs(files.key.read_bytes(), held)
        if ended == 0:
            assert step > 8
            return
    raise AssertionError("it never came to its end")
