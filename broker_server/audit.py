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
        number: counts up from 1.
        at_s: seconds since 1970 by the server's clock.
        who: operator, ``policy``, ``server``, or the device that failed.
        what: slug, such as ``start``, ``wave``, ``abort`` or ``retire``.
        task, release: that it was done to; "" and 0 when it was done to a device, which `detail` names.
        detail: for people.
        previous: `digest` of the entry before.
        digest: SHA-256 over all the other fields, 64 hex digits.
    """

    number: int
    at_s: float
    who: str
    what: str
    task: str
    release: int
    detail: str
    previous: str
    digest: str = ""

    def sealed(self) -> AuditEntry:
        """The same entry with its digest."""
        bare = msgspec.structs.replace(self, digest="")
        return msgspec.structs.replace(self, digest=sha256(msgspec.json.encode(bare)).hexdigest())


class AuditTrail:
    """Makes the entries of a log, each with the hash of the one before."""

    def __init__(self) -> None:
        self._number, self._digest = 0, FIRST

    def resume(self, newest: AuditEntry) -> None:
        """Go on after the newest entry on disk."""
        self._number, self._digest = newest.number, newest.digest

    def note(self, now: float, who: str, what: str, task: str = "", release: int = 0, detail: str = "") -> AuditEntry:
        """Make the next entry; see `AuditEntry` for the fields."""
        self._number += 1
        entry = AuditEntry(
            number=self._number,
            at_s=now,
            who=who,
            what=what,
            task=task,
            release=release,
            detail=detail,
            previous=self._digest,
        ).sealed()
        self._digest = entry.digest
        return entry


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
