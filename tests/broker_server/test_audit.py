"""The audit log shows every change that was made to it afterwards."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import text

from broker_server.audit import FIRST, AuditEntry, verify
from broker_server.effects import SaveAudit
from broker_server.store.database import Database
from edge_protocol.errors import CheckFailedError


def log(count: int = 5) -> list[AuditEntry]:
    """A log of some entries."""
    entries: list[AuditEntry] = []
    for number in range(1, count + 1):
        previous = entries[-1].digest if entries else FIRST
        entry = AuditEntry(
            number=number, at_s=1.0, who="ann", what="start", task="vehicle", release=2, detail="", previous=previous
        )
        entries.append(entry.sealed())
    return entries


def bare(entry: AuditEntry) -> AuditEntry:
    """An entry as it comes to the database: without its place."""
    return msgspec.structs.replace(entry, number=0, previous="", digest="")


def test_a_log_as_it_was_written_verifies() -> None:
    """The number of entries and the newest digest, which somebody may note down elsewhere."""
    entries = log()
    assert verify(entries) == (5, entries[-1].digest)
    assert verify([]) == (0, FIRST)


@pytest.mark.parametrize("at", range(5))
@pytest.mark.parametrize("field", [f for f in AuditEntry.__struct_fields__ if f != "number"])
def test_every_changed_field_of_every_entry_is_found(at: int, field: str) -> None:
    """Whatever is changed, the entry is named."""
    entries = log()
    other = 9 if isinstance(getattr(entries[at], field), int | float) else "x"
    entries[at] = msgspec.structs.replace(entries[at], **{field: other})
    with pytest.raises(CheckFailedError, match=f"entry {at + 1}"):
        verify(entries)


def test_what_is_dropped_moved_or_sealed_again_is_found() -> None:
    """A gap, another order, and an entry that was changed together with its own hash."""
    entries = log()
    with pytest.raises(CheckFailedError, match="entry 3 is missing"):
        verify([*entries[:2], *entries[3:]])
    with pytest.raises(CheckFailedError, match="entry 2 is missing"):
        verify([entries[0], entries[2], entries[1]])
    forged = msgspec.structs.replace(entries[1], who="bob").sealed()
    with pytest.raises(CheckFailedError, match="entry 3"):
        verify([entries[0], forged, *entries[2:]])


def test_the_database_appends_and_refuses_everything_else(tmp_path: Path) -> None:
    """Rows cannot be changed, replaced or removed; whoever drops the guard first is found by the chain."""
    database, entries = Database(tmp_path / "server.db"), log()
    database.apply([SaveAudit(bare(entry)) for entry in entries[:2]])
    database.apply([SaveAudit(bare(entry)) for entry in entries[2:]])
    assert database.audit() == entries
    for statement in ("DELETE FROM audit WHERE number = 2", "UPDATE audit SET task = 'x' WHERE number = 2"):
        with pytest.raises(Exception, match="append-only"), database.engine.begin() as connection:
            connection.execute(text(statement))
    with database.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER audit_no_change"))
        connection.execute(text("UPDATE audit SET entry = json_set(entry, '$.who', 'bob') WHERE number = 2"))
    with pytest.raises(CheckFailedError, match="entry 2"):
        verify(database.audit())
    database.close()


def test_processes_that_write_at_once_make_one_chain(tmp_path: Path) -> None:
    """A server and the commands beside it: nobody's entry is lost, and none stands between two that belong together."""
    databases = [Database(tmp_path / "server.db") for _ in range(4)]

    def write(number: int) -> None:
        for _ in range(10):
            entry = AuditEntry(at_s=1.0, who=f"process-{number}", what="start")
            databases[number].apply([SaveAudit(entry), SaveAudit(entry)])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    entries = databases[0].audit()
    assert verify(entries)[0] == 80
    assert all(first.who == second.who for first, second in zip(entries[::2], entries[1::2], strict=True))
    for database in databases:
        database.close()
