"""``roadcast devices list|show|logs``: the boards of a fleet, as the server knows them, and their logs over SSH."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from roadcast.output import JsonFlag, emit, table

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer()
StateDir = Annotated[Path, typer.Option("--state-dir", help="The server's state folder.")]


@app.command("list")
def list_fleet(*, state_dir: StateDir, json: JsonFlag = False) -> None:
    """On the server: every device, how its board is doing, and what is wrong; works beside a running server."""
    found = [health(device) for device in _status(state_dir)["devices"]]
    emit(found, json, _fleet)


@app.command()
def show(
    device: Annotated[str, typer.Argument(help="Its name.")], *, state_dir: StateDir, json: JsonFlag = False
) -> None:
    """On the server: all that is known of one device: tasks, releases, last round, board, and what is wrong."""
    from broker_server.status import device_details, open_database

    logging.getLogger("alembic").setLevel(logging.WARNING)
    database = open_database(state_dir)
    try:
        found = device_details(database, device)
    finally:
        database.close()
    emit({**found, "findings": health(found)["findings"]}, json, _details)


@app.command()
def logs(
    target: Annotated[str, typer.Argument(help="A device of the site, or [DEVICE=][USER@]HOST[:PORT].")],
    *,
    site: Annotated[Path, typer.Option("--site", "-s", help="The site's YAML, with its ssh inventory.")],
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=100_000, help="Newest lines.")] = 200,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    unit: Annotated[str, typer.Option(help="Which service of the device.")] = "roadcast-agent.service",
    known_hosts: Annotated[Path, typer.Option(help="Host keys, for targets without a fingerprint in the site.")] = Path(
        "~/.ssh/known_hosts"
    ),
    identity: Annotated[Path | None, typer.Option(help="Private key.")] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="File with the password; or set ROADCAST_SSH_PASSWORD.")
    ] = None,
) -> None:
    """Print a device's journal over SSH, redacted; for a device that the server only hears of."""
    import asyncio

    from devices.provision.ssh_link import Login, read_lines
    from edge_client.support_bundle import redacted
    from edge_protocol.errors import ConfigError
    from roadcast.commands.flash import read_site
    from roadcast.ssh_fleet import read_password, targets_of

    found = targets_of(read_site(site).site, target, None)
    if len(found) != 1:
        raise ConfigError(f"logs: {target!r} names {len(found)} devices; name one")
    login = Login(known_hosts.expanduser(), identity, read_password(password_file, ask=False))
    command = ["journalctl", "--no-pager", "--output=short-iso", f"--unit={unit}", f"--lines={lines}"]

    def say(line: str) -> None:
        sys.stdout.write(redacted(line) + "\n")
        sys.stdout.flush()

    (place,) = found.values()
    asyncio.run(read_lines(place, [*command, *(["--follow"] if follow else [])], login, say))


def health(device: dict[str, Any]) -> dict[str, Any]:
    """A device in a line: how its board is doing, and what is wrong with it."""
    from devices.telemetry.health import judge
    from devices.telemetry.sampler import Sample

    told = device["telemetry"]
    values = {} if told is None else told["values"]
    warm = {name.partition(".")[2]: value for name, value in values.items() if name.startswith("temperature_celsius.")}
    bad = [finding for finding in judge([Sample(0.0, values)]) if finding.level != "ok"]
    return {
        "device": device["device"],
        "state": device["state"],
        "board": device["board"],
        "seen_s": device["seen_s"],
        "celsius": warm.get("tj", max(warm.values(), default=None)),
        "watts": values.get("board_power_watts"),
        "findings": bad,
    }


def _status(state_dir: Path) -> dict[str, Any]:
    from broker_server.status import open_database, status

    logging.getLogger("alembic").setLevel(logging.WARNING)
    database = open_database(state_dir)
    try:
        return status(database)
    finally:
        database.close()


def _fleet(found: list[dict[str, Any]]) -> RenderableType:
    rows = [
        (
            device["device"],
            device["state"],
            device["board"],
            None if device["celsius"] is None else f"{device['celsius']:.1f} °C",
            None if device["watts"] is None else f"{device['watts']:.2f} W",
            "; ".join(f"{finding.check}: {finding.says}" for finding in device["findings"]) or None,
        )
        for device in found
    ]
    return table("", ("device", "state", "board", "hottest", "power", "findings"), rows)


def _details(found: dict[str, Any]) -> RenderableType:
    rows: list[tuple[object, ...]] = [
        ("state", f"{found['state']}, heard of {_when(found['seen_s'])}"),
        ("board", found["board"]),
        ("software", f"{found['software']}, {found['runtime']}"),
    ]
    for task, runs in found["tasks"].items():
        rows.append((task, f"release {runs['release']} of {runs['student']} ({runs['tier']}) {runs['deployment']}"))
        told = runs["state"]
        if told is not None:
            rows += [(f"{task}: session", told["session"]), *((f"{task}: {k}", v) for k, v in told["values"].items())]
            rows += [(f"{task}: {name}", count) for name, count in told["counts"].items()]
    rows += [(f"{r['task']}: report", f"round {r['round']}, {_when(r['received_s'])}") for r in found["reports"]]
    rows += [
        (f"{r['task']}/{r['release']}: rollout", f"wave {r['wave']}, {r['state']} {r['reason']}")
        for r in found["rollouts"]
    ]
    told = found["telemetry"]
    rows += [] if told is None else [(name, f"{value:.6g}") for name, value in sorted(told["values"].items())]
    rows += [(f"{finding.level}: {finding.check}", finding.says) for finding in found["findings"]]
    return table(found["device"], ("what", "found"), rows)


def _when(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at_s))
