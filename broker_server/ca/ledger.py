"""What an authority has issued, promised and revoked: one SQLite file that several processes use at once.

Every decision that must be made once is one immediate transaction. Owns no key.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography import x509

from edge_protocol.errors import CheckFailedError, StoreError
from edge_protocol.identity.certificates import common_name, key_hash, to_pem

_BUSY_S = 10.0
_TABLES = (
    """CREATE TABLE IF NOT EXISTS tokens (
  secret BLOB PRIMARY KEY, name TEXT NOT NULL, expires_s REAL NOT NULL, key TEXT, serial TEXT
)""",
    """CREATE TABLE IF NOT EXISTS certificates (
  serial TEXT PRIMARY KEY, name TEXT NOT NULL, key TEXT NOT NULL, issued_s REAL NOT NULL, ends_s REAL NOT NULL,
  pem BLOB NOT NULL, revoked_s REAL, reason TEXT NOT NULL DEFAULT '', dropped_s REAL
)""",
    "CREATE INDEX IF NOT EXISTS by_name ON certificates (name)",
)
_COLUMNS = "serial, name, key, issued_s, ends_s, revoked_s, reason, dropped_s"


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate that was issued.

    Attributes:
        serial: hex digits.
        name: its holder.
        key: SHA-256 of its public key.
        issued_s, ends_s: seconds since 1970.
        revoked_s: None when it is not.
        reason: of the revocation.
        dropped_s: when sessions that it opened were ended, once it had ended or been revoked.
    """

    serial: str
    name: str
    key: str
    issued_s: float
    ends_s: float
    revoked_s: float | None
    reason: str
    dropped_s: float | None

    def state(self, now: float) -> str:
        """``valid``, ``expired`` or ``revoked``."""
        return "revoked" if self.revoked_s is not None else "valid" if now < self.ends_s else "expired"


class Ledger:
    """The file; made when missing.

    Raises:
        StoreError: from every method, when the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._transaction() as database:
            for statement in _TABLES:
                database.execute(statement)

    def promise(self, secret: bytes, name: str, expires_s: float) -> None:
        """Remember a token."""
        with self._transaction() as database:
            database.execute("INSERT INTO tokens VALUES (?, ?, ?, NULL, NULL)", (_hash(secret), name, expires_s))

    def redeem(
        self, secret: bytes, request: x509.CertificateSigningRequest, now: float, issue: Callable[[], x509.Certificate]
    ) -> tuple[str, bytes]:
        """Trade a token for a certificate, once: whoever brings it again with the same key gets the same one.

        The name's earlier certificates are revoked: the board has a new key.

        Args:
            secret: of the token.
            request: whose key.
            now: seconds since 1970.
            issue: signs.

        Returns:
            The name, and the certificate as PEM.

        Raises:
            CheckFailedError: unknown, expired or used token, or one for another name.
        """
        key, name = key_hash(request), common_name(request.subject)
        with self._transaction() as database:
            row = database.execute(
                "SELECT name, expires_s, key, serial FROM tokens WHERE secret = ?", (_hash(secret),)
            ).fetchone()
            if row is None:
                raise CheckFailedError("this authority made no such token; ask for a new one")
            if row[0] != name:
                raise CheckFailedError(f"the token is for {row[0]!r}, the request for {name!r}")
            if row[2] is not None:
                return name, self._again(database, row[3], same=row[2] == key)
            if now >= row[1]:
                raise CheckFailedError(f"the token for {name!r} has expired; ask for a new one")
            _revoke(database, name, now, "superseded")
            certificate = issue()
            serial = _insert(database, certificate, name, now)
            database.execute("UPDATE tokens SET key = ?, serial = ? WHERE secret = ?", (key, serial, _hash(secret)))
        return name, to_pem([certificate])

    def _again(self, database: sqlite3.Connection, serial: str, *, same: bool) -> bytes:
        pem, revoked = database.execute(
            "SELECT pem, revoked_s FROM certificates WHERE serial = ?", (serial,)
        ).fetchone()
        if not same:
            raise CheckFailedError("the token was used, by another key; if that was not you, revoke the device")
        if revoked is not None:
            raise CheckFailedError("the token was used, and its certificate was revoked since; ask for a new token")
        return bytes(pem)

    def record(self, certificate: x509.Certificate, name: str, now: float) -> None:
        """Write down a certificate that was signed for an operator."""
        with self._transaction() as database:
            _insert(database, certificate, name, now)

    def renew(self, serial: str, name: str, now: float, issue: Callable[[], x509.Certificate]) -> bytes:
        """Give the holder of a valid certificate the next one; PEM.

        Raises:
            CheckFailedError: the present one is unknown, another's, or revoked.
        """
        with self._transaction() as database:
            row = database.execute(
                "SELECT name, revoked_s, ends_s FROM certificates WHERE serial = ?", (serial,)
            ).fetchone()
            if row is None or row[0] != name:
                raise CheckFailedError(f"this authority issued no such certificate to {name!r}")
            if row[1] is not None or now >= row[2]:
                raise CheckFailedError(f"the certificate of {name!r} is revoked or expired; enrol with a new token")
            certificate = issue()
            _insert(database, certificate, name, now)
        return to_pem([certificate])

    def revoke(self, name: str, now: float, reason: str) -> int:
        """Revoke every certificate of a name and forget its open tokens; return how many certificates."""
        with self._transaction() as database:
            database.execute("DELETE FROM tokens WHERE name = ? AND key IS NULL", (name,))
            return _revoke(database, name, now, reason)

    def certificates(self) -> list[Issued]:
        """Every certificate, oldest first."""
        return self._select("1 = 1", ())

    def ended(self, now: float) -> list[Issued]:
        """Certificates that were revoked or have expired, and whose sessions have not been ended yet.

        What was ended in the future, by a clock that was ahead, is ended again.
        """
        not_dropped = "(dropped_s IS NULL OR dropped_s > ?)"
        return self._select(f"{not_dropped} AND (revoked_s IS NOT NULL OR ends_s <= ?)", (now, now))

    def _select(self, condition: str, values: tuple[float, ...]) -> list[Issued]:
        query = f"SELECT {_COLUMNS} FROM certificates WHERE {condition} ORDER BY issued_s, rowid"  # noqa: S608 - ours
        with self._transaction() as database:
            return [Issued(*row) for row in database.execute(query, values).fetchall()]

    def dropped(self, serials: list[str], now: float) -> None:
        """Note that sessions of these certificates were ended."""
        with self._transaction() as database:
            database.executemany(
                "UPDATE certificates SET dropped_s = ? WHERE serial = ?", [(now, serial) for serial in serials]
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            database = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None)
            try:
                database.execute("PRAGMA synchronous=FULL")
                database.execute("BEGIN IMMEDIATE")
                yield database
                database.execute("COMMIT")
            finally:
                database.close()  # rolls back what was not committed
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}; nothing was issued or revoked, try again") from error


def serial_text(certificate: x509.Certificate) -> str:
    """A serial number as the ledger and OpenSSL write it: hex digits in capitals."""
    return f"{certificate.serial_number:X}"


def _insert(database: sqlite3.Connection, certificate: x509.Certificate, name: str, now: float) -> str:
    serial, ends = serial_text(certificate), certificate.not_valid_after_utc.timestamp()
    database.execute(
        "INSERT INTO certificates (serial, name, key, issued_s, ends_s, pem) VALUES (?, ?, ?, ?, ?, ?)",
        (serial, name, key_hash(certificate), now, ends, to_pem([certificate])),
    )
    return serial


def _revoke(database: sqlite3.Connection, name: str, now: float, reason: str) -> int:
    return database.execute(
        "UPDATE certificates SET revoked_s = ?, reason = ? WHERE name = ? AND revoked_s IS NULL AND ends_s > ?",
        (now, reason, name, now),
    ).rowcount


def _hash(secret: bytes) -> bytes:
    return sha256(secret).digest()
