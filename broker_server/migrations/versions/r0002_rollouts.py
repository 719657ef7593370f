"""Rollouts, how their devices fare, what operators order, and the audit log.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rollouts",
        sa.Column("task", sa.String(64), primary_key=True),
        sa.Column("counter", sa.Integer, primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("serves", sa.Boolean, nullable=False),
        sa.Column("record", sa.JSON, nullable=False),
    )
    op.create_table(
        "rollout_devices",
        sa.Column("task", sa.String(64), primary_key=True),
        sa.Column("counter", sa.Integer, primary_key=True),
        sa.Column("device", sa.String(64), primary_key=True),
        sa.Column("record", sa.JSON, nullable=False),
    )
    op.create_table(
        "rollout_orders",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("answer", sa.String(512), nullable=True),
        sa.Column("record", sa.JSON, nullable=False),
    )
    op.create_table(
        "audit",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("task", sa.String(64), nullable=False),
        sa.Column("entry", sa.JSON, nullable=False),
    )
    refuse = "SELECT RAISE(ABORT, 'the audit log is append-only')"
    op.execute(f"CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN {refuse}; END")
    op.execute(f"CREATE TRIGGER audit_no_change BEFORE UPDATE ON audit BEGIN {refuse}; END")


def downgrade() -> None:
    for table in ("audit", "rollout_orders", "rollout_devices", "rollouts"):
        op.drop_table(table)
