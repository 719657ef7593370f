"""``roadcast server``: run the server, check its configuration, print the schema of it, look at its state."""

from __future__ import annotations

import json as jsonlib
import logging
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_protocol.ids import SERVER
from roadcast import enrolment
from roadcast.output import JsonFlag, emit, log_to_stderr, table, warn

if TYPE_CHECKING:
    from broker_server.config import ServerConfig
    from broker_server.server import Server

app = typer.Typer(no_args_is_help=True)
ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="The server's YAML file.")]
StateDir = Annotated[Path, typer.Option("--state-dir", help="The server's state folder.")]


@app.callback()
def server() -> None:
    """Run the server: rounds, distillation, releases."""


@app.command()
def run(
    *,
    config: ConfigFile,
    with_broker: Annotated[bool, typer.Option("--with-broker", help="Run a private broker too.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every refused message.")] = False,
    json: JsonFlag = False,
) -> None:
    """Run the server until Ctrl-C or SIGTERM, and print what devices need to know once it has begun."""
    from broker_server.config import read_config
    from broker_server.server import serve

    log_to_stderr(verbose=verbose)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    settings = read_config(config, environment=os.environ)
    with ExitStack() as parts:
        if with_broker:
            parts.enter_context(_broker(settings))

        def begun(running: Server) -> None:
            emit(_introduction(running), json, lambda found: "\n".join(f"{k}: {v}" for k, v in found.items()))
            sys.stdout.flush()

        serve(settings, ready=begun)


@app.command()
def check(*, config: ConfigFile, json: JsonFlag = False) -> None:
    """Refuse what `run` would: read configuration, tasks and packs, say what is there, and which class hides no anchor.

    The keys are looked at last, after what is there was told: `roadcast keys init` makes them.
    """
    from broker_server.config import read_config
    from broker_server.key_setup import ready_roles
    from broker_server.setup import check_files, task_specs

    settings = read_config(config, environment=os.environ)
    found = check_files(settings, task_specs(settings))
    columns = ("task", "pack", "samples", "warning")
    rows = [dict(zip(columns, each, strict=True)) for each in found]
    emit(rows, json, lambda rows: table("", columns, [tuple(row.values()) for row in rows]))
    ready_roles(settings)


@app.command()
def enrol(
    *,
    config: ConfigFile,
    token: enrolment.Token = None,
    csr_out: enrolment.RequestOut = None,
    install: enrolment.Install = None,
    authority: enrolment.AuthorityFile = None,
    json: JsonFlag = False,
) -> None:
    """Make the server's key here, and get its certificate: with a token for 'server', or by files; safe to repeat."""
    from broker_server.config import read_config

    enrolment.enrol(
        read_config(config, environment=os.environ).broker.identity,
        SERVER,
        enrolment.Way(token=token, csr_out=csr_out, install=install, authority=authority),
        json=json,
    )


@app.command()
def renew(*, config: ConfigFile, force: enrolment.Force = False, json: JsonFlag = False) -> None:
    """Renew the server's certificate when a third of its life or less is left; a running server takes it up."""
    from broker_server.config import read_config

    enrolment.renew(read_config(config, environment=os.environ).broker.identity, SERVER, force=force, json=json)


@app.command()
def schema(*, json: JsonFlag = True) -> None:  # noqa: ARG001  # a schema is JSON with and without the flag
    """Print the JSON Schema of the configuration, for editors."""
    from broker_server.config import ServerConfig
    from edge_protocol.config import schema as schema_of

    typer.echo(jsonlib.dumps(schema_of(ServerConfig), indent=2))


@app.command()
def status(*, state_dir: StateDir, json: JsonFlag = False) -> None:
    """Say which rounds, releases and devices there are; works beside a running server."""
    from broker_server.status import open_database
    from broker_server.status import status as read_status

    logging.getLogger("alembic").setLevel(logging.WARNING)
    database = open_database(state_dir)
    try:
        emit(read_status(database), json, _table)
    finally:
        database.close()


def _table(found: dict[str, Any]) -> Any:  # noqa: ANN401 - whatever rich draws
    rows = [
        (
            *(device["device"], device["state"], task, runs["tier"], runs["student"], runs["release"]),
            *(runs["deployment"], _p95(runs["measured"])),
        )
        for device in found["devices"]
        for task, runs in device["tasks"].items()
    ]
    told = [_headline(task, held) for task, held in found["tasks"].items()]
    told += found["warnings"]
    told += [f"{name}: {', '.join(done)}, see roadcast devices list" for name, done in found["offences"].items()]
    rounds = "; ".join(told)
    return table(rounds, ("device", "state", "task", "tier", "student", "release", "deployment", "p95 ms"), rows)


def _p95(measured: dict[str, Any] | None) -> str | None:
    """What was measured when an operator asked last; None: never, or the device refused."""
    p95 = measured["values"].get("p95_ms") if measured else None
    return None if p95 is None else f"{p95:.3g}"


def _headline(task: str, held: dict[str, Any]) -> str:
    standing = {release["counter"]: release["standing"] for release in held["releases"]}
    fleets = next((counter for counter, stands in standing.items() if stands == "fleet"), None)
    newer = [f"{counter} {stands}" for counter, stands in standing.items() if stands and counter > (fleets or 0)]
    last = held["rounds"][-1] if held["rounds"] else None
    told = "" if last is None or last["reports"] is None else f" with {last['reports']} reports"
    tail = f", round {last['number']} {last['state']}{told}" if last else ""
    release = "no release" if fleets is None else f"release {fleets}"
    return f"{task}: {', '.join([release, *newer])}{tail}"


def _introduction(running: Server) -> dict[str, Any]:
    config = running.config
    return {
        "fleet": config.fleet,
        "broker": f"{config.broker.host}:{config.broker.port}",
        "trusted_root": str(running.newest_root),
        "state_dir": config.state_dir,
        "tasks": sorted(config.tasks),
        "pid": os.getpid(),
    }


def _broker(config: ServerConfig) -> Any:  # noqa: ANN401 - a context manager
    from broker_server.brokers import BrokerOptions, choose_broker

    if config.broker.host not in {"127.0.0.1", "localhost", "::1"}:
        warn(f"anyone who reaches {config.broker.host} can speak for any device; keep it in a network of your own")
    folder = Path(config.state_dir) / "broker"
    return choose_broker(options=BrokerOptions(state_dir=folder, host=config.broker.host, port=config.broker.port))
