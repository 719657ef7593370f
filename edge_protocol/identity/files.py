"""A holder's key, certificate and authority on disk. Owns their names, modes and the order in which they are replaced.

A new key and its certificate wait as ``<file>.next`` until both are whole, then take their places by two renames.
Between any two steps a crash leaves the old pair, or something that `settle` completes.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from edge_protocol.errors import CheckFailedError, StoreError
from edge_protocol.files import rename, write_atomic
from edge_protocol.identity.certificates import belongs, common_name, make_key, make_request, read_chain, to_pem

PRIVATE = 0o600


@dataclass(frozen=True, slots=True)
class IdentityFiles:
    """Where a holder's identity lies.

    Attributes:
        ca: certificates of the authority.
        certificate: the holder's own, and those between it and the authority's root.
        key: private key, mode 0600; it is made here and leaves never.
    """

    ca: Path
    certificate: Path
    key: Path

    @property
    def next_key(self) -> Path:
        """The key that waits for its certificate."""
        return self.key.with_name(self.key.name + ".next")

    @property
    def next_certificate(self) -> Path:
        """The certificate that waits for its place."""
        return self.certificate.with_name(self.certificate.name + ".next")

    @property
    def source(self) -> Path:
        """Where the address of the enrolment service is kept, for renewal."""
        return self.certificate.with_name(self.certificate.name + ".url")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from asking for this holder at the same time; they wait.

        Raises:
            StoreError: the disk refused.
        """
        for file in (self.ca, self.certificate, self.key):
            _make_folder(file.parent)
        with self.key.with_name(f"{self.key.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def request(self, name: str) -> bytes:
        """Ask for a certificate for a waiting key, which is made when there is none; the same key however often.

        Raises:
            StoreError: the disk refused.
        """
        self.settle()
        if not self.next_key.exists():
            write_atomic(self.next_key, make_key(), PRIVATE)
        return make_request(_read(self.next_key), name)

    def held(self) -> x509.Certificate | None:
        """Return the certificate in its place, None when there is none.

        Raises:
            ConfigError: what lies there is no certificate.
        """
        self.settle()
        if not self.certificate.exists():
            return None
        return read_chain(_read(self.certificate), str(self.certificate))[0]

    def install(self, chain: bytes, ca: bytes, name: str) -> x509.Certificate:
        """Put a certificate in its place; again changes nothing.

        Args:
            chain: PEM, the holder's own first.
            ca: PEM of the authority.
            name: whose it must be.

        Raises:
            CheckFailedError: it is another's, or for a key that is not here.
            ConfigError: it is no certificate.
            StoreError: the disk refused.
        """
        steps = self.steps(chain, ca, name)
        for step in steps:
            step()
        return read_chain(chain, "certificate")[0]

    def steps(self, chain: bytes, ca: bytes, name: str) -> list[Callable[[], None]]:
        """The steps of an installation; `settle` takes up after any of them."""
        mine = read_chain(chain, "certificate")
        if common_name(mine[0].subject) != name:
            raise CheckFailedError(f"the certificate is for {common_name(mine[0].subject)!r}, not for {name!r}")
        anchors = read_chain(ca, "authority")
        if not _leads_to(mine, anchors):
            raise CheckFailedError(
                f"the certificate of {name!r} is not by that authority; take the ca.pem of its signer"
            )
        authority = partial(write_atomic, self.ca, to_pem(anchors))
        if self.next_key.exists() and belongs(_read(self.next_key), mine[0]):
            wait = partial(write_atomic, self.next_certificate, to_pem(mine))
            return [authority, wait, partial(_rename, self.next_key, self.key), self._place]
        if self.key.exists() and belongs(_read(self.key), mine[0]):
            return [authority, partial(write_atomic, self.certificate, to_pem(mine))]
        raise CheckFailedError(f"the certificate is for a key that is not here ({self.key}); make a new request")

    def settle(self) -> None:
        """Finish an installation that was cut off, or forget a certificate that has no key here.

        Raises:
            StoreError: the disk refused.
        """
        if not self.next_certificate.exists():
            return
        mine = read_chain(_read(self.next_certificate), str(self.next_certificate))[0]
        if self.next_key.exists() and belongs(_read(self.next_key), mine):
            _rename(self.next_key, self.key)
        if self.key.exists() and belongs(_read(self.key), mine):
            self._place()
        else:
            self.next_certificate.unlink()

    def _place(self) -> None:
        _rename(self.next_certificate, self.certificate)


def _leads_to(chain: list[x509.Certificate], anchors: list[x509.Certificate]) -> bool:
    """Tell whether each certificate is signed by the next, and the last by an anchor."""
    for certificate, above in zip(chain, [*chain[1:], None], strict=True):
        issuers = [above] if above is not None else [each for each in anchors if each.subject == certificate.issuer]
        if not any(_signed(certificate, issuer) for issuer in issuers):
            return False
    return True


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be made: {error.strerror or error}") from error


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise StoreError(f"{file}: cannot be read: {error.strerror or error}") from error


def _rename(path: Path, to: Path) -> None:
    try:
        rename(path, to)
    except OSError as error:
        raise StoreError(f"{to}: cannot be replaced: {error.strerror or error}") from error
