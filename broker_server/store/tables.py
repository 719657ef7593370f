"""The database's tables as SQLAlchemy sees them; the migrations make them, and a test compares the two."""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, Float, Index, Integer, LargeBinary, MetaData, String, Table

metadata = MetaData()

devices = Table(
    "devices",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("seen_s", Float, nullable=False),
    Column("record", JSON, nullable=False),
)
device_states = Table(
    "device_states",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("task", String(64), primary_key=True),
    Column("at_s", Float, nullable=False),
    Column("state", JSON, nullable=False),
)
telemetry = Table(
    "telemetry",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("at_s", Float, nullable=False),
    Column("readings", JSON, nullable=False),
)
measurements = Table(
    "measurements",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("task", String(64), primary_key=True),
    Column("at_s", Float, nullable=False),
    Column("measured", JSON, nullable=False),
)
seen_messages = Table(
    "seen_messages",
    metadata,
    Column("message_id", LargeBinary(16), primary_key=True),
    Column("accepted", Boolean, nullable=False),
    Column("reason", String(512), nullable=False),
    Column("at_s", Float, nullable=False),
    Index("seen_messages_at", "at_s"),
)
rounds = Table(
    "rounds",
    metadata,
    Column("task", String(64), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("state", String(16), nullable=False),
    Column("record", JSON, nullable=False),
)
reports = Table(
    "reports",
    metadata,
    Column("task", String(64), primary_key=True),
    Column("device", String(64), primary_key=True),
    Column("round", Integer, nullable=False),
    Column("message_id", LargeBinary(16), nullable=False),
    Column("proxy", String(64), nullable=False),
    Column("received_s", Float, nullable=False),
    Column("report", LargeBinary, nullable=False),
    Index("reports_round", "task", "round"),
)
"""The newest report of each device: it goes on counting, with age, in rounds that the device misses."""
releases = Table(
    "releases",
    metadata,
    Column("task", String(64), primary_key=True),
    Column("counter", Integer, primary_key=True),
    Column("round", Integer, nullable=True),
    Column("created_s", Float, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("notes", String(512), nullable=False),
    Column("manifest", LargeBinary, nullable=False),
    Column("on_broker", Boolean, nullable=False),
)
rollouts = Table(
    "rollouts",
    metadata,
    Column("task", String(64), primary_key=True),
    Column("counter", Integer, primary_key=True),
    Column("state", String(16), nullable=False),
    Column("serves", Boolean, nullable=False),
    Column("record", JSON, nullable=False),
)
"""A release with a row here is the fleet's when `serves` says so, no sooner."""
rollout_devices = Table(
    "rollout_devices",
    metadata,
    Column("task", String(64), primary_key=True),
    Column("counter", Integer, primary_key=True),
    Column("device", String(64), primary_key=True),
    Column("record", JSON, nullable=False),
)
rollout_orders = Table(
    "rollout_orders",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("answer", String(512), nullable=True),
    Column("record", JSON, nullable=False),
)
audit = Table(
    "audit",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("task", String(64), nullable=False),
    Column("entry", JSON, nullable=False),
)
"""Append-only: triggers of the migration refuse to change or remove a row."""
results = Table(
    "results",
    metadata,
    Column("message_id", LargeBinary(16), primary_key=True),
    Column("device", String(64), nullable=False),
    Column("task", String(64), nullable=False),
    Column("source", String(64), nullable=False),
    Column("start_s", Float, nullable=False),
    Column("end_s", Float, nullable=False),
    Column("coverage", Float, nullable=False),
    Column("counted", JSON, nullable=False),
    Column("received_s", Float, nullable=False),
    Index("results_time", "task", "start_s"),
    Index("results_received", "received_s"),
)
