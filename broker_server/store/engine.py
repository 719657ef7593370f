"""Opens the database: connection settings, migrations, and the translation of every database error. Owns no query."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from edge_protocol.errors import StoreError

BUSY_MS = 10_000


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn what a disk or a database raises into a `StoreError`.

    Raises:
        StoreError: names the place, what was refused, and what to do.
    """
    try:
        yield
    except (SQLAlchemyError, CommandError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        raise StoreError(
            f"{where}: {cause}; free space or repair the disk, what was not acknowledged will be sent again"
        ) from error


def open_engine(path: Path) -> Engine:
    """Open, or make, a SQLite database that several processes may use at once."""
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_MS / 1000})
    event.listen(engine, "connect", _configure)
    return engine


def _configure(connection: Any, _record: object) -> None:  # noqa: ANN401 - a DBAPI connection has no common type
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # an acknowledged message survives a power cut, not only a crash
    cursor.close()


def migrate(engine: Engine) -> None:
    """Bring the database to the newest revision; does nothing when it is there.

    One process at a time: a status command may open a database that the server is just making.

    Raises:
        StoreError: the disk refused, or a newer Roadcast made this database.
    """
    with translated(f"migration of {engine.url.database}"), Path(f"{engine.url.database}-migration").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with engine.begin() as connection:
            command.upgrade(_alembic(connection), "head")


def _alembic(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parents[1] / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
