"""Keys, certificate requests (PKCS #10, RFC 2986) and what is read from certificates (X.509, RFC 5280). Pure.

A certificate's common name is the holder's name in topics and its MQTT client id. Keys are ECDSA on P-256, which every
TLS library takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge_protocol.errors import ConfigError, LocalProtocolError, RemoteProtocolError
from edge_protocol.ids import check_id

MAX_PEM_BYTES: Final = 64 * 1024
_BAD: Final = (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature, x509.InvalidVersion)
RENEW_SHARE: Final = 1 / 3
"""Renew when no more than this share of a certificate's life is left."""


def make_key() -> bytes:
    """Draw a private key; PEM, not encrypted."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def make_request(key: bytes, name: str) -> bytes:
    """Ask for a certificate for a name; PEM.

    Args:
        key: private key, PEM.
        name: common name.

    Raises:
        ConfigError: the key cannot be read.
    """
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, check_id(name, "name"))])
    try:
        private = serialization.load_pem_private_key(key, None)
    except _BAD as error:
        raise ConfigError(f"private key: cannot be read: {error}") from error
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(private, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def read_request(pem: bytes) -> x509.CertificateSigningRequest:
    """Read a request that proves possession of its key: an elliptic curve of 256 bits or more, one legal common name.

    Raises:
        RemoteProtocolError: ``bad-request``.
    """
    try:
        request = x509.load_pem_x509_csr(pem[:MAX_PEM_BYTES])
        proven = request.is_signature_valid
        key = request.public_key()
        common_name(request.subject)
    except (*_BAD, LocalProtocolError) as error:
        raise RemoteProtocolError("bad-request", f"certificate request: {error}") from error
    if not proven:
        raise RemoteProtocolError("bad-request", "certificate request: its signature is not by its own key")
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.key_size < ec.SECP256R1.key_size:
        raise RemoteProtocolError("bad-request", "certificate request: need a key on a curve of 256 bits or more")
    return request


def read_chain(pem: bytes, what: str) -> list[x509.Certificate]:
    """Read one or more PEM certificates.

    Raises:
        ConfigError: there is none, or one cannot be read.
    """
    try:
        return x509.load_pem_x509_certificates(pem[:MAX_PEM_BYTES])
    except _BAD as error:
        raise ConfigError(f"{what}: need PEM certificates: {error}") from error


def common_name(subject: x509.Name) -> str:
    """Return the one common name of a subject.

    Raises:
        LocalProtocolError: there is none or several, or it cannot stand in a topic.
    """
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1:
        raise LocalProtocolError("bad-id", f"{subject.rfc4514_string()[:120]!r} must have one common name")
    return check_id(str(names[0].value), "common name")


def key_hash(holder: x509.Certificate | x509.CertificateSigningRequest) -> str:
    """Name a public key by the SHA-256 of its SubjectPublicKeyInfo; 64 hex digits."""
    data = holder.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return sha256(data).hexdigest()


def belongs(key: bytes, certificate: x509.Certificate) -> bool:
    """Tell whether a private key (PEM) is the certificate's."""
    try:
        public = serialization.load_pem_private_key(key, None).public_key()
    except _BAD:
        return False
    return public == certificate.public_key()


def fingerprint(chain: Sequence[x509.Certificate]) -> bytes:
    """SHA-256 over the certificates of an authority in their order, DER; 32 bytes."""
    return sha256(b"".join(each.public_bytes(serialization.Encoding.DER) for each in chain)).digest()


def to_pem(chain: Sequence[x509.Certificate]) -> bytes:
    """Write certificates one after the other."""
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in chain)


def renewal_due(certificate: x509.Certificate, now: float) -> bool:
    """Tell whether a third of its life or less is left.

    Args:
        certificate: the holder's present one.
        now: seconds since 1970.
    """
    begins, ends = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    return ends - now <= RENEW_SHARE * (ends - begins)
