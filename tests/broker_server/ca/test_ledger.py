"""The ledger: a token is traded once, whoever asks at the same time, and a crash loses nothing."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from broker_server.ca.folder import CertificateAuthority
from broker_server.ca.ledger import Ledger
from edge_protocol.errors import CheckFailedError, ConfigError, StoreError
from edge_protocol.identity.certificates import make_key, make_request
from tests.fakes.authority import NOW, make_authority

URL = "https://127.0.0.1:1"


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    """An authority."""
    return make_authority(tmp_path / "ca")


def test_of_many_at_the_same_time_one_gets_the_certificate(authority: CertificateAuthority) -> None:
    """Eight keys bring one token at once: one certificate is issued, seven are refused as replays."""
    token = authority.token("cam-1", URL, 3600, NOW)
    got: list[str] = []
    together = threading.Barrier(8)

    def ask() -> None:
        request = make_request(make_key(), "cam-1")
        together.wait(20)
        try:
            got.append(authority.enrol(token.secret, request, NOW)[0])
        except CheckFailedError as error:
            got.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert got.count("cam-1") == 1
    assert sum("by another key" in answer for answer in got) == 7
    assert len(authority.ledger.certificates()) == 1


def test_the_same_key_gets_the_same_certificate_again(authority: CertificateAuthority) -> None:
    """A holder that died before the answer came asks again, even later than the token lasts."""
    token, request = authority.token("cam-1", URL, 3600, NOW), make_request(make_key(), "cam-1")
    first = authority.enrol(token.secret, request, NOW)
    assert authority.enrol(token.secret, request, NOW + 7200) == first


def test_a_token_that_fits_not_is_refused_and_stays_good(authority: CertificateAuthority) -> None:
    """A wrong name, a secret nobody made and a late hour are told apart; none uses the token up."""
    token, request = authority.token("cam-1", URL, 3600, NOW), make_request(make_key(), "cam-1")
    with pytest.raises(CheckFailedError, match="for 'cam-1', the request for 'cam-2'"):
        authority.enrol(token.secret, make_request(make_key(), "cam-2"), NOW)
    with pytest.raises(CheckFailedError, match="no such token"):
        authority.enrol(bytes(32), request, NOW)
    with pytest.raises(CheckFailedError, match="expired"):
        authority.enrol(token.secret, request, NOW + 3600)
    assert authority.enrol(token.secret, request, NOW)[0] == "cam-1"


def test_an_issuer_that_dies_leaves_the_token_unused(authority: CertificateAuthority) -> None:
    """When signing fails, nothing is written and the token can be brought again."""
    late = NOW + 3600 * 86_400
    secret, request = b"s" * 32, make_request(make_key(), "cam-1")
    authority.ledger.promise(secret, "cam-1", 2 * late)
    with pytest.raises(ConfigError, match="authority ends"):
        authority.enrol(secret, request, late)
    assert authority.ledger.certificates() == []
    assert authority.enrol(secret, request, NOW)[0] == "cam-1"


def test_a_new_enrolment_replaces_the_old_identity(authority: CertificateAuthority) -> None:
    """A board that was replaced gets a certificate by token, and the old board's is revoked."""
    for _ in range(2):
        token = authority.token("cam-1", URL, 3600, NOW)
        authority.enrol(token.secret, make_request(make_key(), "cam-1"), NOW)
    assert [c.state(NOW) for c in authority.ledger.certificates()] == ["revoked", "valid"]
    assert [c.reason for c in authority.ledger.certificates()] == ["superseded", ""]


def test_revoking_a_name_ends_its_certificates_and_its_open_tokens(authority: CertificateAuthority) -> None:
    """Neither a used nor an unused token brings a revoked device back."""
    used, unused = (authority.token("cam-1", URL, 3600, NOW) for _ in range(2))
    request = make_request(make_key(), "cam-1")
    authority.enrol(used.secret, request, NOW)
    assert authority.ledger.revoke("cam-1", NOW, "stolen") == 1
    assert authority.ledger.revoke("cam-1", NOW, "stolen") == 0
    with pytest.raises(CheckFailedError, match="revoked since"):
        authority.enrol(used.secret, request, NOW)
    with pytest.raises(CheckFailedError, match="no such token"):
        authority.enrol(unused.secret, request, NOW)


def test_what_a_clock_that_was_ahead_had_ended_is_ended_when_it_has(authority: CertificateAuthority) -> None:
    """Sessions ended a century early come back, and end for good when their certificate does, once."""
    ledger, ahead = authority.ledger, NOW + 36_500 * 86_400
    token = authority.token("cam-1", URL, 3600, NOW)
    authority.enrol(token.secret, make_request(make_key(), "cam-1"), NOW)
    (early,) = ledger.ended(ahead)
    ledger.dropped([early.serial], ahead)
    assert ledger.ended(early.ends_s - 1) == []
    assert [each.serial for each in ledger.ended(early.ends_s)] == [early.serial]
    ledger.dropped([early.serial], early.ends_s)
    assert ledger.ended(early.ends_s + 1) == []


def test_a_disk_that_refuses_is_an_error(tmp_path: Path) -> None:
    """A ledger that is no database is not taken for an empty one."""
    (tmp_path / "ledger.db").write_bytes(b"junk" * 1000)
    with pytest.raises(StoreError, match="nothing was issued"):
        Ledger(tmp_path / "ledger.db")
