"""``roadcast rollout``: bring a held release to the fleet in waves, watch it, stop it, take it back, read the log."""

from __future__ import annotations

import logging
import re
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from roadcast.output import JsonFlag, emit, follow, table

if TYPE_CHECKING:
    from broker_server.rollout_plan import Plan

app = typer.Typer(no_args_is_help=True)
StateDir = Annotated[Path, typer.Option("--state-dir", help="The server's state folder.")]
Release = Annotated[str, typer.Argument(help="TASK/NUMBER, such as vehicle/4.")]
Wait = Annotated[float, typer.Option("--wait", help="Seconds to wait for the server's answer.", min=0)]


@app.callback()
def rollout() -> None:
    """Bring a release to the fleet in waves."""
    logging.getLogger("alembic").setLevel(logging.WARNING)


@app.command()
def start(
    release: Release,
    *,
    state_dir: StateDir,
    to: Annotated[
        str, typer.Option(help="Whom: 'tag=north,tier=nano' (also board, student, device). All if empty.")
    ] = "",
    canary: Annotated[str, typer.Option(help="Share that comes first, at least one of each tier.")] = "5%",
    waves: Annotated[str, typer.Option(help="Shares that follow; the last one is 100%.")] = "25%,100%",
    soak: Annotated[str, typer.Option(help="How long a wave is watched after it has committed.")] = "30m",
    deadline: Annotated[str, typer.Option(help="Silence of a device that counts as a failure.")] = "2h",
    max_failures: Annotated[int, typer.Option(help="Failed devices that are borne; one more aborts.", min=0)] = 0,
    max_latency_p95: Annotated[str, typer.Option(help="A device that answers slower has failed, such as 40ms.")] = "",
    window: Annotated[str, typer.Option(help="Waves begin only then: HH:MM-HH:MM in UTC.")] = "",
    wait: Wait = 5.0,
    json: JsonFlag = False,
) -> None:
    """Start a rollout of a release that was pushed with --hold, or that waits for its turn."""
    from broker_server.rollout_plan import MILLISECONDS, SECONDS, Plan, parse_quantity, parse_share

    plan = Plan(
        to=to,
        canary=parse_share(canary),
        waves=tuple(parse_share(share) for share in waves.split(",")),
        soak_s=parse_quantity(soak, SECONDS, "duration"),
        deadline_s=parse_quantity(deadline, SECONDS, "duration"),
        max_failures=max_failures,
        max_latency_p95_ms=parse_quantity(max_latency_p95, MILLISECONDS, "latency") if max_latency_p95 else None,
        window=window,
    )
    _order(state_dir, release, "start", wait, json, _checked(plan))


@app.command()
def pause(release: Release, *, state_dir: StateDir, wait: Wait = 5.0, json: JsonFlag = False) -> None:
    """Begin no further wave; what has been offered goes on."""
    _order(state_dir, release, "pause", wait, json)


@app.command()
def resume(release: Release, *, state_dir: StateDir, wait: Wait = 5.0, json: JsonFlag = False) -> None:
    """Go on after a pause."""
    _order(state_dir, release, "resume", wait, json)


@app.command()
def abort(release: Release, *, state_dir: StateDir, wait: Wait = 5.0, json: JsonFlag = False) -> None:
    """End a rollout that is under way, and bring the release before it back to everybody, under a new number."""
    _order(state_dir, release, "abort", wait, json)


@app.command()
def rollback(release: Release, *, state_dir: StateDir, wait: Wait = 5.0, json: JsonFlag = False) -> None:
    """Take back the fleet's release whose rollout is complete; further back: roadcast release again."""
    _order(state_dir, release, "rollback", wait, json)


@app.command()
def status(release: Release, *, state_dir: StateDir, json: JsonFlag = False) -> None:
    """Say how far a rollout has come, and how each of its devices fares."""
    emit(_status(state_dir, release), json, _table)


@app.command()
def watch(
    release: Release,
    *,
    state_dir: StateDir,
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1)] = 1.0,
    json: JsonFlag = False,
) -> None:
    """Show a rollout until it ends: a live table in a terminal, a line (or JSON) for each change elsewhere."""
    look = partial(_status, state_dir, release)
    follow(look, _table, _line, every_s=every, as_json=json, ended=lambda found: found["state"] in _ENDS)


@app.command()
def audit(*, state_dir: StateDir, json: JsonFlag = False) -> None:
    """Check the audit log's chain and print it; exit 3 when an entry was changed or is missing."""
    import msgspec

    from broker_server.audit import verify
    from broker_server.status import open_database

    database = open_database(state_dir)
    try:
        entries = database.audit()
    finally:
        database.close()
    number, digest = verify(entries)
    found = {"entries": [msgspec.to_builtins(entry) for entry in entries], "number": number, "digest": digest}
    emit(found, json, _log)


_ENDS = ("complete", "aborted")


def _checked(plan: Plan) -> Plan:
    """Hold a plan to the bounds that a configuration file is held to.

    Raises:
        ConfigError: a share or a duration is out of bounds.
    """
    import msgspec

    from edge_protocol.errors import ConfigError

    try:
        return msgspec.convert(msgspec.to_builtins(plan), type(plan))
    except msgspec.ValidationError as error:
        raise ConfigError(f"rollout: {error}") from error


def _named(release: str) -> tuple[str, int]:
    from edge_protocol.errors import ConfigError

    found = re.fullmatch("(.+)/([1-9][0-9]{0,15})", release)
    if found is None:
        raise ConfigError(f"{release!r} names no release; write TASK/NUMBER, such as vehicle/4")
    return found[1], int(found[2])


def _order(state_dir: Path, release: str, order: str, wait: float, json: bool, plan: Plan | None = None) -> None:  # noqa: FBT001 - the value of --json
    """Leave an order for the server, and wait for its answer."""
    from broker_server.operators import operator
    from broker_server.records import OrderRecord
    from broker_server.status import open_database
    from edge_protocol.ids import TaskId
    from roadcast.ordering import give

    task, counter = _named(release)
    database = open_database(state_dir)
    try:
        record = OrderRecord(
            task=TaskId(task), counter=counter, order=order, by=operator(), at_s=time.time(), plan=plan
        )
        give(database, record, f"{order} {release}", wait)
    finally:
        database.close()
    emit(_status(state_dir, release), json, _line)


def _status(state_dir: Path, release: str) -> dict[str, Any]:
    from broker_server.status import open_database, rollout_status

    task, counter = _named(release)
    database = open_database(state_dir)
    try:
        return rollout_status(database, task, counter, time.time())
    finally:
        database.close()


def _line(found: dict[str, Any]) -> str:
    fates = ", ".join(f"{count} {fate}" for fate, count in found["counts"].items() if count)
    tail = f": {found['reason']}" if found["reason"] else ""
    tail += f"; devices may still run it: {found['stranded']}" if found["stranded"] else ""
    waits = f"; waits for {found['waits_for']}" if found["waits_for"] else ""
    says = f"{fates or 'nobody yet'}{waits}{tail}"
    return f"{found['task']}/{found['release']} {found['state']}, wave {found['wave']}: {says}"


def _table(found: dict[str, Any]) -> Any:  # noqa: ANN401 - whatever rich draws
    rows = [(d["device"], d["wave"], d["state"], _when(d["since_s"]), d["reason"]) for d in found["devices"]]
    return table(_line(found), ("device", "wave", "state", "since", "reason"), rows)


def _log(found: dict[str, Any]) -> Any:  # noqa: ANN401 - whatever rich draws
    rows = [
        (e["number"], _when(e["at_s"]), e["who"], e["what"], f"{e['task']}/{e['release']}", e["detail"])
        for e in found["entries"]
    ]
    title = f"{found['number']} entries, unbroken; newest hash {found['digest']}"
    return table(title, ("no.", "when", "who", "what", "release", "detail"), rows)


def _when(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at_s))
