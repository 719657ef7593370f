"""The first tables.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _fleet()
    _rounds()
    _results()


def downgrade() -> None:
    for table in ("results", "releases", "reports", "rounds", "seen_messages", "telemetry", "device_states", "devices"):
        op.drop_table(table)


def _fleet() -> None:
    op.create_table(
        "devices",
        sa.Column("device", sa.String(64), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("seen_s", sa.Float, nullable=False),
        sa.Column("record", sa.JSON, nullable=False),
    )
    op.create_table(
        "device_states",
        sa.Column("device", sa.String(64), primary_key=True),
        sa.Column("task", sa.String(64), primary_key=True),
        sa.Column("at_s", sa.Float, nullable=False),
        sa.Column("state", sa.JSON, nullable=False),
    )
    op.create_table(
        "telemetry",
        sa.Column("device", sa.String(64), primary_key=True),
        sa.Column("at_s", sa.Float, nullable=False),
        sa.Column("readings", sa.JSON, nullable=False),
    )
    op.create_table(
        "seen_messages",
        sa.Column("message_id", sa.LargeBinary(16), primary_key=True),
        sa.Column("accepted", sa.Boolean, nullable=False),
        sa.Column("reason", sa.String(512), nullable=False),
        sa.Column("at_s", sa.Float, nullable=False),
    )
    op.create_index("seen_messages_at", "seen_messages", ["at_s"])


def _rounds() -> None:
    op.create_table(
        "rounds",
        sa.Column("task", sa.String(64), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("record", sa.JSON, nullable=False),
    )
    op.create_table(
        "reports",
        sa.Column("task", sa.String(64), primary_key=True),
        sa.Column("device", sa.String(64), primary_key=True),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("message_id", sa.LargeBinary(16), nullable=False),
        sa.Column("proxy", sa.String(64), nullable=False),
        sa.Column("received_s", sa.Float, nullable=False),
        sa.Column("report", sa.LargeBinary, nullable=False),
    )
    op.create_index("reports_round", "reports", ["task", "round"])
    op.create_table(
        "releases",
        sa.Column("task", sa.String(64), primary_key=True),
        sa.Column("counter", sa.Integer, primary_key=True),
        sa.Column("round", sa.Integer, nullable=True),
        sa.Column("created_s", sa.Float, nullable=False),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.Column("notes", sa.String(512), nullable=False),
        sa.Column("signed", sa.LargeBinary, nullable=False),
        sa.Column("on_broker", sa.Boolean, nullable=False),
    )


def _results() -> None:
    op.create_table(
        "results",
        sa.Column("message_id", sa.LargeBinary(16), primary_key=True),
        sa.Column("device", sa.String(64), nullable=False),
        sa.Column("task", sa.String(64), nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("start_s", sa.Float, nullable=False),
        sa.Column("end_s", sa.Float, nullable=False),
        sa.Column("coverage", sa.Float, nullable=False),
        sa.Column("counted", sa.JSON, nullable=False),
        sa.Column("received_s", sa.Float, nullable=False),
    )
    op.create_index("results_time", "results", ["task", "start_s"])
    op.create_index("results_received", "results", ["received_s"])
