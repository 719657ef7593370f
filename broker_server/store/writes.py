"""How rows are written that take the place of others, or go on from them. Owns no table and no transaction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, select
from sqlalchemy.dialects.sqlite import insert

from broker_server import effects as e
from broker_server.audit import AuditEntry
from broker_server.store import tables as t
from broker_server.store.rows import row_of


def upsert(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """Insert rows, each in the place of the one with its primary key."""
    statement = insert(table)
    keys = [c.name for c in table.primary_key]
    fresh = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in keys}
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=fresh), rows)


def append_audit(connection: Connection, entries: Iterable[AuditEntry]) -> None:
    """Chain entries to the newest one of the log, whichever process wrote that."""
    found = connection.execute(select(t.audit.c.entry).order_by(t.audit.c.number.desc()).limit(1)).scalar()
    newest = msgspec.convert(found, AuditEntry) if found else None
    for entry in entries:
        newest = entry.after(newest)
        table, row = row_of(e.SaveAudit(newest))
        connection.execute(table.insert(), row)
