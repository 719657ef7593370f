"""How each save of the coordinator becomes a row; pure, owns no connection."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Table
from typing_extensions import assert_never

from broker_server import effects as e
from broker_server.records import RolloutRecord
from broker_server.store import tables as t

Row = dict[str, Any]


def row_of(save: e.Row) -> tuple[Table, Row]:  # noqa: C901, PLR0911, PLR0912 - a kind each
    """Say which table a save belongs to, and its row there."""
    match save:
        case e.SaveDevice(record):
            values: Row = {"device": record.device, "state": record.state, "seen_s": record.seen_s}
            return t.devices, {**values, "record": msgspec.to_builtins(record)}
        case e.SaveState(stored):
            key: Row = {"device": stored.device, "task": stored.state.task}
            return t.device_states, {**key, "at_s": stored.at_s, "state": msgspec.to_builtins(stored.state)}
        case e.SaveTelemetry(device, at_s, telemetry):
            return t.telemetry, {"device": device, "at_s": at_s, "readings": telemetry.values}
        case e.SaveMeasured(device, at_s, measured):
            told: Row = {"measured": msgspec.to_builtins(measured)}
            return t.measurements, {"device": device, "task": measured.task, "at_s": at_s, **told}
        case e.SaveRound(record):
            numbered: Row = {"task": record.task, "number": record.number, "state": record.state}
            return t.rounds, {**numbered, "record": msgspec.to_builtins(record)}
        case e.SaveSeen(seen):
            return t.seen_messages, msgspec.structs.asdict(seen)
        case e.SaveRollout(rollout):
            return t.rollouts, rollout_row(rollout)
        case e.SaveProgress(progress):
            named: Row = {"task": progress.task, "counter": progress.counter, "device": progress.device}
            return t.rollout_devices, {**named, "record": msgspec.to_builtins(progress)}
        case e.SaveAudit(entry):
            return t.audit, {"number": entry.number, "task": entry.task, "entry": msgspec.to_builtins(entry)}
        case e.SaveOrder(order):
            answer = None if order.answer is None else order.answer[:500]
            return t.rollout_orders, {"number": order.number, "answer": answer, "record": msgspec.to_builtins(order)}
        case e.SaveReport():
            return t.reports, _report(save)
        case e.SaveResult():
            return t.results, _result(save)
        case _:
            assert_never(save)


def rollout_row(record: RolloutRecord) -> Row:
    """Say what of a rollout a query looks at."""
    serves = record.state == "complete" and record.whole_fleet
    key: Row = {"task": record.task, "counter": record.counter, "state": record.state, "serves": serves}
    return {**key, "record": msgspec.to_builtins(record)}


def _report(save: e.SaveReport) -> Row:
    stored, report = save.stored, save.stored.report
    return {
        "task": report.task,
        "device": stored.device,
        "round": stored.round,
        "message_id": stored.message_id,
        "proxy": report.proxy,
        "received_s": stored.received_s,
        "report": msgspec.msgpack.encode(report),
    }


def _result(save: e.SaveResult) -> Row:
    result = save.result
    return {
        "message_id": save.message_id,
        "device": save.device,
        "task": result.task,
        "source": result.source,
        "start_s": result.start_s,
        "end_s": result.end_s,
        "coverage": result.coverage,
        "counted": result.values,
        "received_s": save.received_s,
    }
