"""Requests and what is read from certificates: a legal name, a key that is proven, and when to renew."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from edge_protocol.errors import ConfigError, LocalProtocolError, RemoteProtocolError
from edge_protocol.identity.certificates import (
    belongs,
    common_name,
    key_hash,
    make_key,
    make_request,
    read_chain,
    read_request,
    renewal_due,
)
from tests.fakes.authority import NOW, certified, make_authority


def test_a_request_names_its_holder_and_proves_its_key() -> None:
    """The name and the key come back; two requests of one key have one hash, those of two keys have two."""
    key = make_key()
    first, again = (read_request(make_request(key, "cam-1")) for _ in range(2))
    assert common_name(first.subject) == "cam-1"
    assert key_hash(first) == key_hash(again) != key_hash(read_request(make_request(make_key(), "cam-1")))


def _foreign_request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, *names: str) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize("names", [(), ("a", "b"), ("a/b",), ("+",), ("#",), ("x" * 64 + "é",)])
def test_a_name_that_cannot_stand_in_a_topic_is_refused(names: tuple[str, ...]) -> None:
    """No name, two names and names with wildcards are no holder's."""
    key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises((RemoteProtocolError, ValueError)):
        read_request(_foreign_request(key, *names))


def test_weak_and_foreign_keys_are_refused() -> None:
    """A small curve and an RSA key are not taken."""
    for key in (ec.generate_private_key(ec.SECP192R1()), rsa.generate_private_key(65537, 2048)):
        with pytest.raises(RemoteProtocolError, match="256 bits"):
            read_request(_foreign_request(key, "cam-1"))


@given(st.integers(0, 3000), st.integers(0, 255))
def test_a_damaged_request_is_refused_or_still_its_own(at: int, value: int) -> None:
    """Whatever byte changes, a request is refused or is of the same name and key: nothing else is made of it."""
    pem = bytearray(REQUEST)
    pem[at % len(pem)] = value
    try:
        read = read_request(bytes(pem))
    except RemoteProtocolError:
        return
    assert (key_hash(read), common_name(read.subject)) == (HASH, "cam-1")


@given(st.binary(max_size=300))
def test_junk_is_refused(data: bytes) -> None:
    """Bytes that are no request, and no certificate, are refused as such."""
    with pytest.raises(RemoteProtocolError):
        read_request(data)
    with pytest.raises(ConfigError):
        read_chain(data, "junk")


def test_a_wrong_key_is_an_error_that_says_so() -> None:
    """A file that is no key cannot ask, and belongs to nobody; a name must be legal."""
    with pytest.raises(ConfigError, match="private key"):
        make_request(b"junk", "cam-1")
    with pytest.raises(LocalProtocolError):
        make_request(make_key(), "a/b")


def test_renewal_is_due_in_the_last_third(tmp_path: Path) -> None:
    """A 90-day certificate is renewed from day 60 on."""
    files = certified(make_authority(tmp_path / "ca"), tmp_path / "cam", "cam-1")
    held = files.held()
    assert held is not None
    assert belongs(files.key.read_bytes(), held)
    assert not belongs(make_key(), held)
    assert not belongs(b"junk", held)
    assert not renewal_due(held, NOW + 59 * 86_400)
    assert renewal_due(held, NOW + 60 * 86_400)


REQUEST = make_request(make_key(), "cam-1")
HASH = key_hash(read_request(REQUEST))
