"""The authority as a folder: made once, closed to others, opened with its passphrase, or taken over from elsewhere."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker_server.ca.folder import CaPolicy, CertificateAuthority
from broker_server.ca.issuing import check_issuer, make_issuer
from edge_protocol.errors import CheckFailedError, ConfigError, NotReadyError
from edge_protocol.identity.certificates import make_key, make_request, read_chain
from tests.fakes.authority import NOW, identity_in, make_authority

POLICY = CaPolicy(fleet="sim")


def _leaf(pem: bytes) -> x509.Certificate:
    return read_chain(pem, "leaf")[0]


def test_an_authority_is_made_once_and_its_key_is_its_owners(tmp_path: Path) -> None:
    """The key has mode 0600; a second `init` in the folder, and a key that others may read, are refused."""
    made = make_authority(tmp_path / "ca")
    key = tmp_path / "ca" / "ca.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    with pytest.raises(ConfigError, match="already"):
        make_authority(tmp_path / "ca")
    assert CertificateAuthority.open(tmp_path / "ca", None, NOW).anchors == made.anchors
    key.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        CertificateAuthority.open(tmp_path / "ca", None, NOW)


def test_a_passphrase_encrypts_the_key(tmp_path: Path) -> None:
    """With a passphrase the file is encrypted, and opens with no other and not without."""
    make_authority(tmp_path / "ca", passphrase=b"open")
    assert b"ENCRYPTED" in (tmp_path / "ca" / "ca.key").read_bytes()
    CertificateAuthority.open(tmp_path / "ca", b"open", NOW)
    for wrong in (None, b"shut"):
        with pytest.raises(ConfigError, match="passphrase"):
            CertificateAuthority.open(tmp_path / "ca", wrong, NOW)


def test_no_authority_is_an_error_that_helps(tmp_path: Path) -> None:
    """An empty folder says how to make one."""
    with pytest.raises(NotReadyError, match="ca init"):
        CertificateAuthority.open(tmp_path, None, NOW)


@pytest.mark.parametrize("valid_s", [0.0, -1.0, 367 * 86_400.0, 1e308, float("nan"), float("inf")])
def test_no_token_is_good_for_ever(tmp_path: Path, valid_s: float) -> None:
    """A year at most; nothing is promised otherwise."""
    authority = make_authority(tmp_path / "ca")
    with pytest.raises(ConfigError, match="hours"):
        authority.token("cam-1", "https://h:1", valid_s, NOW)


def test_clients_and_servers_get_different_usages(tmp_path: Path) -> None:
    """A device's certificate cannot stand for a broker, nor a broker's for a device; each has its term."""
    authority = make_authority(tmp_path / "ca")
    device = _leaf(authority.sign(make_request(make_key(), "cam-1"), "cam-1", (), NOW))
    broker = _leaf(authority.sign(make_request(make_key(), "broker"), "broker", ("mq.example", "10.0.0.2"), NOW))
    usages = [list(c.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) for c in (device, broker)]
    assert usages == [[ExtendedKeyUsageOID.CLIENT_AUTH], [ExtendedKeyUsageOID.SERVER_AUTH]]
    names = broker.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["mq.example"]
    assert not device.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert (device.not_valid_after_utc - device.not_valid_before_utc).days == 90


def test_an_operator_says_whose_request_it_is(tmp_path: Path) -> None:
    """A request for another name than the operator's is refused; reserved names get no token."""
    authority = make_authority(tmp_path / "ca")
    with pytest.raises(CheckFailedError, match="for 'server', not for 'cam-1'"):
        authority.sign(make_request(make_key(), "server"), "cam-1", (), NOW)
    with pytest.raises(ConfigError, match="--host NAME"):
        authority.sign(make_request(make_key(), "broker"), "broker", (), NOW)
    with pytest.raises(ConfigError, match="not for devices"):
        authority.token("operator", "https://x", 1, NOW)
    with pytest.raises(ConfigError, match="https://host:port"):
        authority.token("cam-1", "http://x", 1, NOW)


def test_an_authority_from_elsewhere_issues_below_its_root(tmp_path: Path) -> None:
    """An intermediate authority is taken over; its certificates come with the way up to the root, and verify."""
    root = make_issuer("root", 3650, NOW)
    below = make_issuer("below", 3650, NOW)
    middle = (
        x509.CertificateBuilder(root.chain[0].subject, below.chain[0].subject, below.key.public_key(), 7)
        .not_valid_before(below.chain[0].not_valid_before_utc)
        .not_valid_after(below.chain[0].not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(below.chain[0].extensions.get_extension_for_class(x509.KeyUsage).value, critical=True)
        .sign(root.key, root.chain[0].signature_hash_algorithm)  # type: ignore[arg-type]
    )
    issuer = check_issuer(below.key, [middle, root.chain[0]], NOW)
    authority = CertificateAuthority.init(tmp_path / "ca", POLICY, issuer, None, 1, NOW)
    chain = read_chain(authority.sign(make_request(make_key(), "cam-1"), "cam-1", (), NOW), "chain")
    assert chain[1:] == [middle]
    files = identity_in(tmp_path)
    files.install(authority.sign(files.request("cam-1"), "cam-1", (), NOW), authority.anchors, "cam-1")
    assert files.certificate.read_bytes().count(b"BEGIN CERTIFICATE") == 2
    assert CertificateAuthority.open(tmp_path / "ca", None, NOW).issuer.chain == (middle, root.chain[0])


def test_an_authority_that_may_not_sign_is_not_taken_over(tmp_path: Path) -> None:
    """A device's certificate, a stranger's key, a broken chain and one that has ended are refused, with the reason."""
    authority = make_authority(tmp_path / "ca")
    key = make_key()
    private = serialization.load_pem_private_key(key, None)
    device = _leaf(authority.sign(make_request(key, "cam-1"), "cam-1", (), NOW))
    root, stranger = authority.issuer, make_issuer("other", 1, NOW)
    with pytest.raises(ConfigError, match="may not sign"):
        check_issuer(private, [device, *root.chain], NOW)
    with pytest.raises(ConfigError, match="not the key's"):
        check_issuer(private, root.chain, NOW)
    with pytest.raises(ConfigError, match="not signed by the next"):
        check_issuer(root.key, [*root.chain, *stranger.chain], NOW)
    with pytest.raises(ConfigError, match="not valid today"):
        check_issuer(stranger.key, stranger.chain, NOW + 2 * 86_400)
    with pytest.raises(ConfigError, match="elliptic-curve or RSA"):
        check_issuer("key", root.chain, NOW)


def test_the_list_holds_what_was_revoked(tmp_path: Path) -> None:
    """The list is signed by the authority, names revoked serials, and forgets those that have expired anyway."""
    authority = make_authority(tmp_path / "ca")
    gone = _leaf(authority.sign(make_request(make_key(), "cam-1"), "cam-1", (), NOW))
    authority.sign(make_request(make_key(), "cam-2"), "cam-2", (), NOW)
    authority.ledger.revoke("cam-1", NOW, "stolen")
    revoked = x509.load_pem_x509_crl(authority.revocations(NOW))
    assert [entry.serial_number for entry in revoked] == [gone.serial_number]
    assert revoked.is_signature_valid(authority.issuer.key.public_key())
    assert len(x509.load_pem_x509_crl(authority.revocations(NOW + 92 * 86_400))) == 0


def test_a_certificate_never_outlives_its_authority(tmp_path: Path) -> None:
    """In the authority's last days it issues nothing that would end after it."""
    authority = make_authority(tmp_path / "ca")
    with pytest.raises(ConfigError, match="make or import another"):
        authority.sign(make_request(make_key(), "cam-1"), "cam-1", (), NOW + 3600 * 86_400)
