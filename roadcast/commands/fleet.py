"""``roadcast devices list|show|logs``: the boards of a fleet, as the server knows them, and their logs over SSH."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from roadcast.output import JsonFlag, emit, follow, printable, table
from roadcast.ssh_options import KNOWN_HOSTS, AskPassword, Identity, KnownHosts, PasswordFile

if TYPE_CHECKING:
    from rich.console import RenderableType

    from devices.findings import Finding

app = typer.Typer()
Wait = Annotated[float, typer.Option("--wait", help="Seconds to wait for the server's answer.", min=0)]
StateDir = Annotated[Path, typer.Option("--state-dir", help="The server's state folder.")]
STALL_S = 300
"""Seconds in which nothing came of a fetch that is under way, after which that is a finding."""


@app.command("list")
def list_fleet(
    *,
    state_dir: StateDir,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on until Ctrl-C, redrawn in a terminal.")] = False,
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1)] = 1.0,
    json: JsonFlag = False,
) -> None:
    """On the server: every device, how its board is doing, and what is wrong; works beside a running server."""

    def look() -> list[dict[str, Any]]:
        return [health(device) for device in _status(state_dir)["devices"]]

    if watch:
        follow(look, _fleet, _tally, every_s=every, as_json=json)
    emit(look(), json, _fleet)


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
    target: Annotated[str, typer.Argument(help="A name of the site's inventory, or [USER@]HOST[:PORT].")],
    *,
    site: Annotated[Path | None, typer.Option("--site", "-s", help="The site's YAML, with its ssh inventory.")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=100_000, help="Newest lines.")] = 200,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    unit: Annotated[str, typer.Option(help="Which service of the device.")] = "roadcast-agent.service",
    known_hosts: KnownHosts = KNOWN_HOSTS,
    identity: Identity = None,
    password_file: PasswordFile = None,
    ask_password: AskPassword = False,
) -> None:
    """Print a device's journal over SSH, with secrets masked."""
    import asyncio

    from devices.provision.ssh import follow as follow_there
    from edge_client.support_bundle import redacted
    from roadcast.ssh_fleet import login_of, site_at, target_at

    def say(line: str) -> None:
        sys.stdout.write(printable(redacted(line)) + "\n")
        sys.stdout.flush()

    command = ["journalctl", "--no-pager", "--output=short-iso", f"--unit={unit}", f"--lines={lines}"]
    place = target_at(target, site_at(site))
    login = login_of(known_hosts, identity, password_file, ask=ask_password)
    asyncio.run(follow_there(place, [*command, *(["--follow"] if follow else [])], login, say))


@app.command()
def tag(
    device: Annotated[str, typer.Argument(help="Its name.")],
    tags: Annotated[list[str], typer.Argument(help="north gives it a tag, ~north takes it away.")],
    *,
    state_dir: StateDir,
    wait: Wait = 5.0,
    json: JsonFlag = False,
) -> None:
    """Give a device tags, for rollout start --to 'tag=…'; those of the server's configuration stay."""
    from edge_protocol.ids import given_id

    asked = tuple(("-" if word.startswith("~") else "+") + given_id(word.removeprefix("~"), "tag") for word in tags)
    _order(state_dir, device, "tag", wait, tags=asked, json=json)


@app.command()
def retire(
    device: Annotated[str, typer.Argument(help="Its name.")],
    *,
    state_dir: StateDir,
    wait: Wait = 5.0,
    json: JsonFlag = False,
) -> None:
    """Have the server ignore a device from now on, in rounds and in rollouts; its certificate: roadcast ca revoke."""
    _order(state_dir, device, "retire", wait, json=json)


@app.command()
def reinstate(
    device: Annotated[str, typer.Argument(help="Its name.")],
    *,
    state_dir: StateDir,
    wait: Wait = 5.0,
    json: JsonFlag = False,
) -> None:
    """Take a retired device back; it is asked who it is when it speaks next."""
    _order(state_dir, device, "reinstate", wait, json=json)


def _order(state_dir: Path, device: str, order: str, wait_s: float, *, tags: tuple[str, ...] = (), json: bool) -> None:
    """Leave an order about a device for the server, and wait for its answer."""
    from broker_server.operators import operator
    from broker_server.records import OrderRecord
    from broker_server.status import device_details, open_database
    from edge_protocol.ids import DeviceId, TaskId
    from roadcast.ordering import give

    logging.getLogger("alembic").setLevel(logging.WARNING)
    by, name, no_task = operator(), DeviceId(device), TaskId("")
    database = open_database(state_dir)
    try:
        record = OrderRecord(task=no_task, counter=0, order=order, by=by, at_s=time.time(), device=name, tags=tags)
        give(database, record, f"{order} {device}", wait_s)
        found = device_details(database, device)
    finally:
        database.close()
    said = {name: found[name] for name in ("device", "state", "tags")}
    emit(said, json, lambda told: f"{told['device']}: {told['state']}  {' '.join(told['tags'])}".rstrip())


def health(device: dict[str, Any]) -> dict[str, Any]:
    """A device in a line: how its board is doing, and what is wrong with it."""
    from devices.findings import Finding
    from devices.telemetry.health import judge
    from devices.telemetry.sampler import Sample

    told, fresh = device["telemetry"], device["state"] == "online"
    values = told["values"] if told is not None and fresh else {}
    warm = {name.partition(".")[2]: value for name, value in values.items() if name.startswith("temperature_celsius.")}
    bad = [finding for finding in judge([Sample(0.0, values)]) if finding.level != "ok"]
    if told is not None and not fresh:
        bad.append(Finding("board", "warn", f"last told {_when(told['at_s'])}", "look at its power and its link"))
    bad += [_offence(reason, done["count"], done["last_s"]) for reason, done in device["offences"].items()]
    bad += [Finding("foreign-release", "fail", each["says"], each["fix"]) for each in device["foreign"]]
    bad += _stalls(device["tasks"]) if fresh else []
    return {
        "device": device["device"],
        "state": device["state"],
        "board": device["board"],
        "seen_s": device["seen_s"],
        "celsius": warm.get("tj", max(warm.values(), default=None)),
        "watts": values.get("board_power_watts"),
        "findings": bad,
    }


def _offence(reason: str, count: int, last_s: float) -> Finding:
    from devices.findings import Finding

    says = {
        "clone": "two boards take turns under this name",
        "quota-messages": "messages dropped, too many a second",
        "quota-bytes": "messages dropped, too many bytes a day",
        "quota-again": "chunks not published again, asked for too often",
    }.get(reason, reason)
    last = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(last_s))
    fix = "roadcast ca revoke NAME; roadcast broker refresh" if reason == "clone" else "look at the device's log"
    return Finding(reason, "fail" if reason == "clone" else "warn", f"{says} ({count} times, last {last} UTC)", fix)


def _stalls(tasks: dict[str, Any]) -> list[Finding]:
    """Fetches of which nothing came for long, by the device's last states, though its own policy allows them."""
    from devices.findings import Finding

    found = []
    for task, runs in tasks.items():
        told = runs["state"]["counts"] if runs["state"] else {}
        if told.get("fetch_idle_s", 0) >= STALL_S and not told.get("fetch_held"):
            minutes, left, size = told["fetch_idle_s"] // 60, told.get("fetch_bytes_left"), told.get("fetch_bytes")
            says = f"{task}: nothing came for {minutes} min, {left} of {size} bytes of a file are lacking"
            fix = "is the server up, and does the broker hold its chunks? docs/operations.md"
            found.append(Finding("fetch-stalls", "warn", says, fix))
    return found


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


def _tally(found: list[dict[str, Any]]) -> str:
    """The fleet in a line: how many are in which state, and who has something wrong."""
    states = Counter(device["state"] for device in found)
    ill = [device["device"] for device in found if device["findings"]]
    told = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "no device yet"
    return told + (f"; look at {', '.join(ill)}" if ill else "")


def _details(found: dict[str, Any]) -> RenderableType:
    rows: list[tuple[object, ...]] = [
        ("state", f"{found['state']}, heard of {_when(found['seen_s'])}"),
        ("board", found["board"]),
        ("tags", " ".join(found["tags"]) or None),
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
    if told is not None:
        rows.append(("board told", _when(told["at_s"])))
        rows += [(name, f"{value:.6g}") for name, value in sorted(told["values"].items())]
    rows += [(f"{finding.level}: {finding.check}", finding.says) for finding in found["findings"]]
    return table(found["device"], ("what", "found"), rows)


def _when(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at_s))
