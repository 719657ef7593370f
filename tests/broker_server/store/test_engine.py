"""Migrations: from nothing to the newest tables, again without effect, and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, text

from broker_server.store.engine import _alembic, migrate, open_engine
from broker_server.store.tables import metadata
from edge_protocol.errors import StoreError


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """An empty file."""
    made = open_engine(tmp_path / "server.db")
    yield made
    made.dispose()


def test_migrations_make_exactly_the_tables_that_the_code_uses(engine: Engine) -> None:
    """From an empty file the newest revision equals the tables in code, and running again changes nothing."""
    for _ in range(2):
        migrate(engine)
        with engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_migrations_can_be_taken_back(engine: Engine) -> None:
    """Downgrading leaves nothing but Alembic's own table."""
    migrate(engine)
    with engine.begin() as connection:
        command.downgrade(_alembic(connection), "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]


def test_releases_keep_their_manifest(engine: Engine) -> None:
    """A row of the time when a manifest was signed by one key holds the same manifest afterwards."""
    signed = msgspec.msgpack.encode(("release", b"manifest", "key", bytes(64)))
    with engine.begin() as connection:
        command.upgrade(_alembic(connection), "0002")
        columns = "task, counter, created_s, metrics, notes, signed, on_broker"
        row = {"signed": signed}
        connection.execute(text(f"INSERT INTO releases ({columns}) VALUES ('a', 1, 0, '{{}}', '', :signed, 1)"), row)
    migrate(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT manifest FROM releases")).scalar_one() == b"manifest"


def test_a_database_of_a_newer_roadcast_is_not_touched(engine: Engine) -> None:
    """An unknown revision is a StoreError that says so."""
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match="9999"):
        migrate(engine)


def test_what_is_committed_survives_a_power_cut(engine: Engine) -> None:
    """Write-ahead log, and every commit synchronised to the disk."""
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar_one() == 2
