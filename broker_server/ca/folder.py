"""A certificate authority as a folder: who may get a certificate, for how long, and the key that signs it.

::

    ca.key       private key, mode 0600, encrypted when a passphrase is given
    ca.pem       its certificate and those above it: what holders trust
    ca.json      fleet and lifetimes
    ledger.db    tokens, certificates, revocations (the only file that changes)
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from msgspec import Meta

from broker_server.ca.issuing import BROKER, ENROLMENT, RESERVED, SERVICES, Issuer, check_issuer, make_issuer
from broker_server.ca.ledger import Ledger, serial_text
from edge_protocol.errors import CheckFailedError, ConfigError, NotReadyError, RemoteProtocolError, StoreError
from edge_protocol.files import write_atomic
from edge_protocol.identity.certificates import common_name, fingerprint, read_chain, read_request, to_pem
from edge_protocol.identity.token import SECRET_BYTES, EnrolmentToken
from edge_protocol.ids import given_id

_OTHERS = 0o077
MAX_DAYS = 36_500
MAX_TOKEN_S = 366 * 86_400.0
"""A token is a secret that lies about: none is good for longer than a year."""
Days = Annotated[float, Meta(gt=0, le=MAX_DAYS)]


class CaPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an authority gives.

    Attributes:
        fleet: whose it is.
        device_days: life of a device's certificate.
        service_days: life of those of the server, the operator and the broker.
        crl_days: life of a list of revoked certificates; a broker whose list has expired refuses everybody.
    """

    fleet: str
    device_days: Days = 90.0
    service_days: Days = 365.0
    crl_days: Days = 30.0


class CertificateAuthority:
    """An authority that can sign. Make one with `init`, take one up with `open`."""

    def __init__(self, folder: Path, policy: CaPolicy, issuer: Issuer) -> None:
        self.folder, self.policy, self.issuer = folder, policy, issuer
        self.ledger = Ledger(folder / "ledger.db")

    @classmethod
    def init(
        cls, folder: Path, policy: CaPolicy, issuer: Issuer | None, passphrase: bytes | None, days: float, now: float
    ) -> CertificateAuthority:
        """Make the folder.

        Args:
            folder: where; a new one, or what an interrupted `init` left.
            policy: what it gives.
            issuer: an authority made elsewhere; None for a new one.
            passphrase: encrypts the key.
            days: life of a new authority.
            now: seconds since 1970.

        Raises:
            ConfigError: there is an authority already, a name is none, or a life is out of bounds.
            StoreError: the disk refused.
        """
        given_id(policy.fleet, "fleet")
        try:
            msgspec.convert((days, msgspec.to_builtins(policy)), tuple[Days, CaPolicy])
        except msgspec.ValidationError as error:
            raise ConfigError(f"authority: nothing of it lives longer than {MAX_DAYS} days: {error}") from error
        if (folder / "ca.json").exists():
            raise ConfigError(f"{folder}: there is an authority already; choose another folder")
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreError(f"{folder}: cannot be made: {error.strerror or error}") from error
        made = issuer or make_issuer(policy.fleet, days, now)
        lock = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
        key = made.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)
        write_atomic(folder / "ca.key", key, 0o600)
        write_atomic(folder / "ca.pem", to_pem(made.chain))
        write_atomic(folder / "ca.json", msgspec.json.format(msgspec.json.encode(policy)) + b"\n")
        return cls(folder, policy, made)

    @classmethod
    def open(cls, folder: Path, passphrase: bytes | None, now: float) -> CertificateAuthority:
        """Take it up.

        Raises:
            NotReadyError: there is none.
            ConfigError: a file is wrong, its key is open to others, or the passphrase is wrong or missing.
        """
        open_ledger(folder)
        try:
            policy = msgspec.json.decode((folder / "ca.json").read_bytes(), type=CaPolicy)
            chain = read_chain((folder / "ca.pem").read_bytes(), str(folder / "ca.pem"))
        except (OSError, msgspec.MsgspecError) as error:
            raise ConfigError(f"{folder}: ca.json or ca.pem cannot be read: {error}") from error
        return cls(folder, policy, check_issuer(read_key(folder / "ca.key", passphrase), chain, now))

    @property
    def anchors(self) -> bytes:
        """PEM of what holders trust."""
        return to_pem(self.issuer.chain)

    def token(self, name: str, url: str, valid_s: float, now: float) -> EnrolmentToken:
        """Promise a certificate for a name, once.

        Raises:
            ConfigError: the name is reserved or none, the address is no ``https://host:port``, or the time too long.
            StoreError: the disk refused.
        """
        if not 0 < valid_s <= MAX_TOKEN_S:
            raise ConfigError(f"token: it may be used for up to {MAX_TOKEN_S / 3600:g} hours, got {valid_s / 3600:g}")
        if given_id(name, "device") in RESERVED:
            raise ConfigError(f"device: {name!r} is not for devices; choose another name")
        made = EnrolmentToken(name, url, fingerprint(self.issuer.chain), secrets.token_bytes(SECRET_BYTES))
        try:
            msgspec.convert(msgspec.to_builtins(made), EnrolmentToken)
        except msgspec.ValidationError as error:
            raise ConfigError(f"enrolment service {url!r}: need https://host:port ({error})") from error
        self.ledger.promise(made.secret, name, now + valid_s)
        return made

    def enrol(self, secret: bytes, request: bytes, now: float) -> tuple[str, bytes]:
        """Trade a token's secret for a certificate; return the name, and PEM of it and those between it and the root.

        Raises:
            CheckFailedError: the token is not good for this request.
            RemoteProtocolError: the request cannot be used.
            StoreError: the disk refused.
        """
        asked = read_request(request)
        name = common_name(asked.subject)
        got, pem = self.ledger.redeem(secret, asked, now, lambda: self._sign(asked, name, (), now))
        return got, pem + self._between

    def renew(self, present: x509.Certificate, request: bytes, now: float) -> bytes:
        """Give the holder of a certificate the next one; PEM as of `enrol`.

        Raises:
            CheckFailedError: revoked, expired, unknown, or the request is for another name.
            RemoteProtocolError: the request cannot be used.
            StoreError: the disk refused.
        """
        asked, holder = read_request(request), common_name(present.subject)
        if common_name(asked.subject) != holder:
            raise CheckFailedError(f"the certificate is of {holder!r}, the request for {common_name(asked.subject)!r}")
        return (
            self.ledger.renew(serial_text(present), holder, now, lambda: self._sign(asked, holder, (), now))
            + self._between
        )

    def sign(self, request: bytes, name: str, hosts: Sequence[str], now: float) -> bytes:
        """Sign a request that an operator vouches for; PEM as of `enrol`.

        Args:
            request: PEM.
            name: whose it must be.
            hosts: names and addresses of a TLS server; none for a client.
            now: seconds since 1970.

        Raises:
            CheckFailedError: the request is for another name, or cannot be used.
            ConfigError: a TLS server without hosts.
        """
        if name in {BROKER, ENROLMENT} and not hosts:
            raise ConfigError(f"{name!r} is a TLS server: give the names that clients use, --host NAME")
        try:
            asked = read_request(request)
        except RemoteProtocolError as error:
            raise CheckFailedError(str(error)) from error
        if common_name(asked.subject) != name:
            raise CheckFailedError(f"the request is for {common_name(asked.subject)!r}, not for {name!r}")
        certificate = self._sign(asked, name, hosts, now)
        self.ledger.record(certificate, name, now)
        return to_pem([certificate]) + self._between

    def revocations(self, now: float) -> bytes:
        """The list of certificates that were revoked and have not expired by themselves; PEM."""
        revoked = [
            (int(issued.serial, 16), issued.revoked_s)
            for issued in self.ledger.certificates()
            if issued.revoked_s is not None and now < issued.ends_s + 86_400
        ]
        return self.issuer.revocations(revoked, self.policy.crl_days, now).public_bytes(serialization.Encoding.PEM)

    @property
    def _between(self) -> bytes:
        return to_pem([each for each in self.issuer.chain if each.subject != each.issuer])

    def _sign(
        self, request: x509.CertificateSigningRequest, name: str, hosts: Sequence[str], now: float
    ) -> x509.Certificate:
        service = hosts or name in SERVICES
        return self.issuer.sign(
            request, name, hosts, self.policy.service_days if service else self.policy.device_days, now
        )


def open_ledger(folder: Path) -> Ledger:
    """Look into an authority without its key.

    Raises:
        NotReadyError: there is none.
    """
    if not (folder / "ca.json").exists():
        raise NotReadyError(f"{folder}: no authority here; make one: roadcast ca init --dir {folder} --fleet NAME")
    return Ledger(folder / "ledger.db")


def read_key(path: Path, passphrase: bytes | None) -> object:
    """Read an authority's private key.

    Raises:
        ConfigError: it cannot be read, others may read it, or the passphrase does not open it.
    """
    try:
        if path.stat().st_mode & _OTHERS:
            raise ConfigError(f"{path}: others may read the authority's key; run: chmod 600 {path}")
        return serialization.load_pem_private_key(path.read_bytes(), passphrase)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        hint = "give its passphrase with --passphrase-file or ROADCAST_CA_PASSPHRASE; none when it has none"
        raise ConfigError(f"{path}: the authority's key cannot be used: {error}; {hint}") from error
