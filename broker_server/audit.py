"""The audit log: who did what to which release or device, when; each entry holds the hash of the one before. Pure.

Whoever changes, drops or inserts an entry has to change every later hash too. Note the newest hash down elsewhere, and
not even that helps him.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

import msgspec

from edge_protocol.errors import CheckFailedError

FIRST = "0" * 64
"""What stands for the hash before the first entry."""


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was done.

    Attributes:
        number: counts up from 1; 0 until the database has appended it.
        at_s: seconds since 1970 by the server's clock.
        who: operator, ``policy``, ``server``, or the device that failed.
        what: slug, such as ``release``, ``start``, ``wave``, ``abort``, ``retire`` or ``keys``.
        task, release: that it was done to; "" and 0 when it was done to something else, which `detail` names.
        detail: for people.
        previous: `digest` of the entry before.
        digest: SHA-256 over all the other fields, 64 hex digits.
    """

    number: int = 0
    at_s: float
    who: str
    what: str
    task: str = ""
    release: int = 0
    detail: str = ""
    previous: str = ""
    digest: str = ""

    def after(self, newest: AuditEntry | None) -> AuditEntry:
        """The same entry as the next one of a log, of which this is the newest so far."""
        number, previous = (newest.number + 1, newest.digest) if newest else (1, FIRST)
        return msgspec.structs.replace(self, number=number, previous=previous).sealed()

    def sealed(self) -> AuditEntry:
        """The same entry with its digest."""
        bare = msgspec.structs.replace(self, digest="")
        return msgspec.structs.replace(self, digest=sha256(msgspec.json.encode(bare)).hexdigest())


def verify(entries: Iterable[AuditEntry]) -> tuple[int, str]:
    """Check a whole log, oldest entry first; return how many entries it has and the newest digest.

    Raises:
        CheckFailedError: names the first entry that was changed, or is missing.
    """
    number, previous = 0, FIRST
    for entry in entries:
        number += 1
        if entry.number != number:
            raise CheckFailedError(f"audit log: entry {number} is missing, {entry.number} stands in its place")
        if entry.previous != previous or entry.sealed().digest != entry.digest:
            raise CheckFailedError(f"audit log: entry {number}, or the one before it, was changed after it was written")
        previous = entry.digest
    return number, previous
