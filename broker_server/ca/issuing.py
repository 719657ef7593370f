"""What an authority signs: its own certificate, those of holders, and the list of revoked ones (RFC 5280). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge_protocol.errors import ConfigError
from edge_protocol.ids import SERVER

OPERATOR: Final = "operator"
"""The name under which sessions are ended at the broker."""
BROKER: Final = "broker"
ENROLMENT: Final = "enrolment"
RESERVED: Final = frozenset({OPERATOR, BROKER, ENROLMENT})
"""Names that no device may have, beside the server's."""
SERVICES: Final = frozenset({SERVER, OPERATOR})
_EARLY: Final = timedelta(hours=1)
"""Certificates are valid from an hour ago: a device's clock may be behind."""
Signer = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
Holder = x509.CertificateSigningRequest


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who signs.

    Attributes:
        key: its private key.
        chain: its own certificate first, then those above it.
    """

    key: Signer
    chain: tuple[x509.Certificate, ...]

    def sign(self, request: Holder, name: str, hosts: Sequence[str], days: float, now: float) -> x509.Certificate:
        """Certify a request's key; nothing else of the request is taken.

        Args:
            request: whose key.
            name: common name.
            hosts: names and addresses of a TLS server, which may then not connect as a client; none for a client.
            days: how long it is valid.
            now: seconds since 1970.

        Raises:
            ConfigError: the authority's own certificate ends before.
        """
        begins = _time(now)
        ends = begins + timedelta(days=days)
        if ends > self.chain[0].not_valid_after_utc:
            raise ConfigError(
                f"the authority ends {self.chain[0].not_valid_after_utc:%Y-%m-%d}: make or import another"
            )
        usage = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            _builder(_name(name), self.chain[0].subject, request.public_key(), begins - _EARLY, ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(_issuer_id(self.chain[0]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(request.public_key()), critical=False)
        )
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False
            )
        return builder.sign(self.key, hashes.SHA256())

    def revocations(
        self, revoked: Iterable[tuple[int, float]], days: float, now: float
    ) -> x509.CertificateRevocationList:
        """Sign the list of revoked certificates.

        Args:
            revoked: serial number and time of each.
            days: after which nobody may trust the list any more: a broker then refuses everybody.
            now: seconds since 1970.
        """
        issued = _time(now)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.chain[0].subject)
            .last_update(issued - _EARLY)
            .next_update(issued + timedelta(days=days))
            .add_extension(x509.CRLNumber(int(now * 1000)), critical=False)
            .add_extension(_issuer_id(self.chain[0]), critical=False)
        )
        for serial, at in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_time(at)).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.key, hashes.SHA256())


def make_issuer(fleet: str, days: float, now: float) -> Issuer:
    """Make a new root authority of a fleet.

    Args:
        fleet: its name.
        days: how long it is valid.
        now: seconds since 1970.
    """
    key, begins = ec.generate_private_key(ec.SECP256R1()), _time(now)
    name = _name(f"{fleet} authority")
    certificate = (
        _builder(name, name, key.public_key(), begins - _EARLY, begins + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Issuer(key, (certificate,))


def check_issuer(key: object, chain: Sequence[x509.Certificate], now: float) -> Issuer:
    """Take an authority that was made elsewhere: its certificate first, then those above it, to the root.

    Raises:
        ConfigError: it may not sign certificates and revocation lists, has ended, or the chain does not hold.
    """
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ConfigError("authority key: need an elliptic-curve or RSA key")
    if key.public_key() != chain[0].public_key():
        raise ConfigError("authority: the first certificate of the chain is not the key's; put the issuing one first")
    for at, certificate in enumerate(chain):
        above = chain[min(at + 1, len(chain) - 1)]
        try:
            certificate.verify_directly_issued_by(above)
            may = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
            signs = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        except Exception as error:
            who = certificate.subject.rfc4514_string()
            raise ConfigError(f"authority: {who} is not signed by the next one, or is no authority: {error}") from error
        if not (may and signs.key_cert_sign and (at or signs.crl_sign)):
            raise ConfigError(f"authority: {certificate.subject.rfc4514_string()} may not sign certificates and lists")
        if not certificate.not_valid_before_utc <= _time(now) < certificate.not_valid_after_utc:
            raise ConfigError(f"authority: {certificate.subject.rfc4514_string()} is not valid today")
    return Issuer(key, tuple(chain))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: CertificatePublicKeyTypes, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    named = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
    return named.not_valid_before(begins).not_valid_after(ends)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _issuer_id(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]  # EC or RSA


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), timezone.utc)
