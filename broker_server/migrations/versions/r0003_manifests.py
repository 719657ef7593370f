"""Releases hold their manifest alone: signed metadata, in files of their own, list its hash.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import msgspec
import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE releases RENAME COLUMN signed TO manifest")
    rows = sa.table("releases", sa.column("task"), sa.column("counter"), sa.column("manifest"))
    link = op.get_bind()
    for task, counter, signed in link.execute(sa.select(rows.c.task, rows.c.counter, rows.c.manifest)).all():
        _tag, manifest, *_signature = msgspec.msgpack.decode(signed)
        here = (rows.c.task == task) & (rows.c.counter == counter)
        link.execute(rows.update().where(here).values(manifest=manifest))


def downgrade() -> None:
    op.execute("DELETE FROM releases")  # what signed them is not here any more
    op.execute("ALTER TABLE releases RENAME COLUMN manifest TO signed")
