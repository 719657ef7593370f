"""``roadcast round``: look into rounds, and do one again to see that every bit of it is what was stored."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from roadcast.output import JsonFlag, emit, table, warn

if TYPE_CHECKING:
    from broker_server.store.database import Database

app = typer.Typer(no_args_is_help=True)
StateDir = Annotated[Path, typer.Option("--state-dir", help="The server's state folder.")]
Number = Annotated[int, typer.Argument(help="Number of the round.", min=0)]
SHOWN = 24
"""Letters of a hash or score that the table shows; ``--json`` has them all."""
COHORTS = 5
"""Cohorts that the table of a round shows."""
Task = Annotated[str, typer.Option("--task", help="Name of the task.")]


@app.callback()
def round_() -> None:
    """Look into rounds and replay them."""
    logging.getLogger("alembic").setLevel(logging.WARNING)


@app.command("list")
def list_rounds(
    *,
    state_dir: StateDir,
    task: Annotated[str | None, typer.Option("--task", help="Only this task's.")] = None,
    json: JsonFlag = False,
) -> None:
    """List every round, and whether it can be replayed."""
    from broker_server.round_facts import round_summary
    from edge_protocol.ids import TaskId

    with _opened(state_dir) as database:
        records = database.rounds(TaskId(task) if task else None)
        emit([round_summary(state_dir, database, record) for record in records], json, _rounds)


@app.command()
def show(number: Number, *, task: Task, state_dir: StateDir, json: JsonFlag = False) -> None:
    """Show a round: who was heard, who was refused and why, and what was distilled from what."""
    from broker_server.round_facts import find_round, manifest_of, round_details

    with _opened(state_dir) as database:
        record = find_round(database, task, number)
    emit(round_details(record, manifest_of(state_dir, record)), json, _details)


@app.command()
def replay(
    number: Number,
    *,
    task: Task,
    state_dir: StateDir,
    force: Annotated[bool, typer.Option("--force", help="Try although versions differ.")] = False,
    timeout_s: Annotated[float, typer.Option(help="Stop the worker after this long.", min=1.0)] = 3600.0,
    json: JsonFlag = False,
) -> None:
    """Do a round again from what is stored and compare every file and score; exit code 3 when a bit differs."""
    from broker_server.replay import replay as do_again
    from broker_server.round_facts import find_round
    from broker_server.workshop import worker_process
    from edge_protocol.errors import CheckFailedError

    with _opened(state_dir) as database:
        record = find_round(database, task, number)
    found = do_again(state_dir, record, worker_process(timeout_s), force=force)
    for name, pair in found.environment.items():
        warn(f"replayed with another {name}: {pair}")
    emit(found, json, lambda replayed: table("", ("what", "same", "stored", "replayed"), _compared(replayed)))
    if not found.same:
        raise CheckFailedError(f"round {number} of {task!r} came out differently; the lines with 'no' say where")


@contextmanager
def _opened(state_dir: Path) -> Iterator[Database]:
    from broker_server.status import open_database

    database = open_database(state_dir)
    try:
        yield database
    finally:
        database.close()


def _rounds(found: list[dict[str, Any]]) -> Any:  # noqa: ANN401 - whatever rich draws
    columns = ("task", "round", "state", "release", "reports", "refused", "replayable", "reason")
    return table("", columns, [tuple(row.values()) for row in found])


def _details(found: dict[str, Any]) -> Any:  # noqa: ANN401 - whatever rich draws
    head = f"{found['task']}: round {found['number']} {found['state']}: {found['reason']}"
    rules = ", ".join(f"{name} {value}" for name, value in (found["rules"] or {}).items() if value != {})
    rows = [tuple(_short(value) for value in device.values()) for device in found["devices"]]
    devices = table("", ("device", "counts", "age", "trust", "reason", "trunk"), rows)
    lost = table("", ("tier", "cohort that fares worst", "samples", "before", "after"), _worst(found))
    parts = [head, f"judged by: {rules or 'nobody yet'}", devices, lost]
    if isinstance(devices, str):
        return "\n".join(map(str, parts))
    from rich.console import Group
    from rich.text import Text

    return Group(*(Text(part) if isinstance(part, str) else part for part in parts))


def _worst(found: dict[str, Any]) -> list[tuple[object, ...]]:
    """The cohorts that lost most for what they had, worst first."""
    tiers = found.get("manifest", {}).get("result", {}).get("cohorts", {})
    pairs = [(tier, name, pair) for tier, cohorts in tiers.items() for name, pair in cohorts.items()]
    pairs.sort(key=lambda each: -each[2]["loss"] / max(abs(each[2]["current"]), 1e-9))
    return [
        (tier, name, pair["samples"], _short(pair["current"]), _short(pair["candidate"]))
        for tier, name, pair in pairs[:COHORTS]
    ]


def _short(value: object) -> object:
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.3g}"
        case _:
            return value


def _compared(found: Any) -> list[tuple[str, ...]]:  # noqa: ANN401 - a Replay, whose module waits until it is needed
    pairs = [(pair.what, pair.same, pair.stored, pair.replayed) for pair in found.outcomes]
    return [(what, "yes" if same else "no", stored[:SHOWN], replayed[:SHOWN]) for what, same, stored, replayed in pairs]
