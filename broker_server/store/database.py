"""The database: writes a batch of saves in one transaction, and answers what a start or a person asks.

Safe for several threads and processes. Owns no rule: what is saved was decided by the coordinator.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Row, delete, func, select
from sqlalchemy import update as sql_update

from broker_server import effects as e
from broker_server.audit import AuditEntry
from broker_server.records import (
    DeviceRecord,
    OrderRecord,
    ProgressRecord,
    ReleaseRecord,
    RolloutRecord,
    RoundRecord,
    SeenMessage,
    StoredState,
)
from broker_server.rounds import REPORT_ROUNDS
from broker_server.store import tables as t
from broker_server.store.engine import migrate, open_engine, translated
from broker_server.store.rows import rollout_row, row_of
from broker_server.store.writes import append_audit, upsert
from edge_protocol.errors import StoreError
from edge_protocol.ids import DeviceId, TaskId
from edge_protocol.messages import FullReport, Measured

T = TypeVar("T")
REPLACED = "a later order for the same release replaced it, before a server took it"


class Database:
    """The server's database.

    Args:
        path: SQLite file; made, and migrated to the newest tables, when needed.

    Raises:
        StoreError: the disk refused.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with translated(str(path)):
            path.parent.mkdir(parents=True, exist_ok=True)
        self.engine = open_engine(path)
        try:
            migrate(self.engine)
        except StoreError:
            self.close()
            raise

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    def apply(self, saves: Iterable[e.Save]) -> None:
        """Write a batch, all or nothing; of several saves of the same thing the last one counts.

        Raises:
            StoreError: nothing of the batch was written; it may be tried again.
        """
        batch: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = defaultdict(dict)
        entries: list[AuditEntry] = []
        gone: set[DeviceId] = set()
        for save in saves:
            if isinstance(save, e.ForgetReports):
                gone.add(save.device)
                for key in [key for key, row in batch["reports"].items() if row["device"] == save.device]:
                    del batch["reports"][key]
                continue
            if isinstance(save, e.SaveAudit):
                entries.append(save.entry)
                continue
            table, row = row_of(save)
            batch[table.name][tuple(row[c.name] for c in table.primary_key)] = row
        if batch or entries or gone:
            with translated(str(self.path)), self._writing() as connection:
                if gone:
                    connection.execute(delete(t.reports).where(t.reports.c.device.in_(gone)))
                for name, rows in ((name, rows) for name, rows in batch.items() if rows):
                    upsert(connection, t.metadata.tables[name], list(rows.values()))
                if entries:
                    append_audit(connection, entries)

    def devices(self) -> list[DeviceRecord]:
        """Every device, by name."""
        return [_typed(r.record, DeviceRecord) for r in self._rows(select(t.devices.c.record).order_by("device"))]

    def states(self) -> list[StoredState]:
        """The newest state of every device's tasks."""
        rows = self._rows(select(t.device_states).order_by("device", "task"))
        return [_typed({"device": r.device, "at_s": r.at_s, "state": r.state}, StoredState) for r in rows]

    def telemetry(self) -> dict[str, dict[str, Any]]:
        """The newest readings of every device's board, and when they came."""
        return {r.device: {"at_s": r.at_s, "values": r.readings} for r in self._rows(select(t.telemetry))}

    def measurements(self) -> dict[tuple[DeviceId, TaskId], tuple[float, Measured]]:
        """How fast each device's students answered when they were last measured, and when that came."""
        rows = self._rows(select(t.measurements))
        return {(DeviceId(r.device), TaskId(r.task)): (r.at_s, _typed(r.measured, Measured)) for r in rows}

    def seen(self, *, since_s: float, limit: int) -> list[SeenMessage]:
        """Newest answers to durable messages, oldest first."""
        columns = t.seen_messages.c
        query = select(t.seen_messages).where(columns.at_s >= since_s).order_by(columns.at_s.desc()).limit(limit)
        return [SeenMessage(r.message_id, r.accepted, r.reason, r.at_s) for r in reversed(self._rows(query))]

    def rounds(self, task: TaskId | None = None, *, limit: int | None = None) -> list[RoundRecord]:
        """Rounds, oldest first; with `limit`, the newest."""
        query = select(t.rounds.c.record).order_by(t.rounds.c.number.desc(), t.rounds.c.task).limit(limit)
        query = query if task is None else query.where(t.rounds.c.task == task)
        return [_typed(r.record, RoundRecord) for r in reversed(self._rows(query))]

    def answered(self, task: TaskId, number: int) -> dict[DeviceId, bytes]:
        """Devices whose report of a round was accepted, and the message that carried it."""
        c = t.reports.c
        rows = self._rows(select(c.device, c.message_id).where(c.task == task, c.round == number))
        return {DeviceId(r.device): r.message_id for r in rows}

    def reports(self, task: TaskId, number: int, proxy: str) -> dict[DeviceId, FullReport]:
        """The newest report of each device on a proxy set as of a round, of an earlier one too; "" for class means."""
        c = t.reports.c
        rows = self._rows(
            select(c.device, c.report)
            .where(c.task == task, c.proxy == proxy, c.round > number - REPORT_ROUNDS, c.round <= number)
            .order_by(c.device)
        )
        return {DeviceId(r.device): msgspec.msgpack.decode(r.report, type=FullReport) for r in rows}

    def releases(self, task: TaskId | None = None, *, after: int = 0) -> list[ReleaseRecord]:
        """Releases above a counter, oldest first."""
        c = t.releases.c
        query = select(t.releases).where(c.counter > after).order_by(c.task, c.counter)
        query = query if task is None else query.where(c.task == task)
        return [ReleaseRecord(**r) for r in self._mappings(query)]

    def release(self, task: TaskId, counter: int) -> ReleaseRecord | None:
        """One release, if it is there."""
        c = t.releases.c
        found = self._mappings(select(t.releases).where(c.task == task, c.counter == counter))
        return ReleaseRecord(**found[0]) if found else None

    def newest(self) -> dict[TaskId, int]:
        """Highest release counter of each task."""
        c = t.releases.c
        rows = self._rows(select(c.task, func.max(c.counter).label("newest")).group_by(c.task))
        return {TaskId(r.task): r.newest for r in rows}

    def serving(self, task: TaskId) -> ReleaseRecord | None:
        """The fleet's release: the newest one that no rollout holds back."""
        c, rolled = t.releases.c, t.rollouts
        joined = t.releases.outerjoin(rolled, (rolled.c.task == c.task) & (rolled.c.counter == c.counter))
        mine = (c.task == task) & (rolled.c.serves.is_(None) | rolled.c.serves)
        found = self._mappings(select(t.releases).select_from(joined).where(mine).order_by(c.counter.desc()).limit(1))
        return ReleaseRecord(**found[0]) if found else None

    def aside(self, task: TaskId) -> set[int]:
        """Releases that never were, or are not yet, the whole fleet's."""
        c = t.rollouts.c
        return {r.counter for r in self._rows(select(c.counter).where(c.task == task, c.serves.is_(False)))}

    def rollouts(self, task: TaskId | None = None, *, after: int = 0) -> list[RolloutRecord]:
        """Rollouts of releases above a counter, oldest first."""
        c = t.rollouts.c
        query = select(c.record).where(c.counter > after).order_by(c.task, c.counter)
        rows = self._rows(query if task is None else query.where(c.task == task))
        return [_typed(r.record, RolloutRecord) for r in rows]

    def draft(self, task: TaskId, counter: int) -> RolloutRecord | None:
        """The rollout of a release, if it has one."""
        return next((r for r in self.rollouts(task, after=counter - 1) if r.counter == counter), None)

    def progress(self, task: TaskId, counter: int) -> list[ProgressRecord]:
        """How every device of a rollout fares."""
        c = t.rollout_devices.c
        rows = self._rows(select(c.record).where(c.task == task, c.counter == counter).order_by(c.device))
        return [_typed(r.record, ProgressRecord) for r in rows]

    def progress_of(self, device: DeviceId) -> list[ProgressRecord]:
        """How a device fares in every rollout that it is part of."""
        c = t.rollout_devices.c
        rows = self._rows(select(c.record).where(c.device == device).order_by(c.task, c.counter))
        return [_typed(r.record, ProgressRecord) for r in rows]

    def last_reports(self, device: DeviceId) -> list[dict[str, Any]]:
        """Of each task the round of a device's newest report, and when it came."""
        c = t.reports.c
        return self._mappings(select(c.task, c.round, c.received_s).where(c.device == device).order_by(c.task))

    def audit(self) -> list[AuditEntry]:
        """The audit log, oldest entry first."""
        return [_typed(r.entry, AuditEntry) for r in self._rows(select(t.audit.c.entry).order_by(t.audit.c.number))]

    def orders(self) -> list[OrderRecord]:
        """Orders that nobody has answered, oldest first."""
        c = t.rollout_orders.c
        rows = self._rows(select(c.number, c.record).where(c.answer.is_(None)).order_by(c.number))
        return [msgspec.structs.replace(_typed(r.record, OrderRecord), number=r.number) for r in rows]

    def add_order(self, order: OrderRecord) -> int:
        """Leave an order for the server; return its number.

        Raises:
            StoreError: the disk refused.
        """
        with translated(str(self.path)), self.engine.begin() as connection:
            row = {"record": msgspec.to_builtins(order)}
            return int(
                connection.execute(t.rollout_orders.insert().returning(t.rollout_orders.c.number), row).scalar_one()
            )

    def replace_orders(self, task: TaskId, counter: int) -> list[OrderRecord]:
        """Take back what was ordered about a release's rollout and no server has taken yet: a later order replaces it.

        Raises:
            StoreError: the disk refused.
        """
        c = t.rollout_orders.c
        mine = (c.answer.is_(None), c.record["task"].as_string() == task, c.record["counter"].as_integer() == counter)
        with translated(str(self.path)), self.engine.begin() as connection:
            taken = sql_update(t.rollout_orders).where(*mine).values(answer=REPLACED).returning(c.record)
            return [_typed(row.record, OrderRecord) for row in connection.execute(taken)]

    def answer(self, number: int) -> str | None:
        """What the server answered to an order; None when it has not yet."""
        c = t.rollout_orders.c
        found: str | None = self._rows(select(c.answer).where(c.number == number))[0].answer
        return found

    def add_release(
        self, record: ReleaseRecord, draft: RolloutRecord | None = None, noted: AuditEntry | None = None
    ) -> None:
        """Record a release, and in the same transaction the rollout that holds it back, or who released it.

        Raises:
            StoreError: its counter is taken, or the disk refused.
        """
        row = {c.name: getattr(record, c.name) for c in t.releases.columns}
        with (
            translated(f"release {record.counter} of {record.task!r} in {self.path}"),
            self._writing() as connection,
        ):
            connection.execute(t.releases.insert(), row)
            if noted is not None:
                append_audit(connection, [noted])
            if draft is not None:
                connection.execute(t.rollouts.insert(), rollout_row(draft))

    def clear_release(self, task: TaskId, counter: int) -> None:
        """Remember that the broker no longer keeps a release's chunks."""
        c = t.releases.c
        with translated(str(self.path)), self.engine.begin() as connection:
            connection.execute(sql_update(t.releases).where(c.task == task, c.counter == counter), {"on_broker": False})

    def results(self, task: TaskId, *, limit: int = 1000) -> list[dict[str, Any]]:
        """Newest interval results of a task, oldest first."""
        c = t.results.c
        query = select(t.results).where(c.task == task).order_by(c.start_s.desc(), c.device).limit(limit)
        return self._mappings(query)[::-1]

    def prune(self, *, messages_before_s: float, results_before_s: float) -> int:
        """Forget old answers and results; return how many."""
        with translated(str(self.path)), self.engine.begin() as connection:
            old = (
                delete(t.seen_messages).where(t.seen_messages.c.at_s < messages_before_s),
                delete(t.results).where(t.results.c.received_s < results_before_s),
            )
            return sum(connection.execute(statement).rowcount for statement in old)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction in which nobody else writes, from its first look on."""
        with self.engine.begin() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    def _mappings(self, query: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - selects of any columns
        with translated(str(self.path)), self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def _rows(self, query: Any) -> list[Row[Any]]:  # noqa: ANN401 - selects of any columns
        with translated(str(self.path)), self.engine.connect() as connection:
            return list(connection.execute(query).all())


def _typed(value: object, kind: type[T]) -> T:
    return msgspec.convert(value, kind)
