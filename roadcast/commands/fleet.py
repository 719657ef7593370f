"""``roadcast devices list|show|logs``: the boards of a fleet, as the server knows them, and their logs over SSH."""

from __future__ import annotations

import getpass
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from roadcast.output import JsonFlag, emit, table
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
        sys.stdout.write(redacted(line) + "\n")
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
    from edge_protocol.ids import check_id

    asked = tuple(("-" if word.startswith("~") else "+") + check_id(word.removeprefix("~"), "tag") for word in tags)
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
    from broker_server.records import OrderRecord
    from broker_server.status import device_details, open_database
    from edge_protocol.ids import DeviceId, TaskId
    from roadcast.ordering import give

    logging.getLogger("alembic").setLevel(logging.WARNING)
    by, name, no_task = getpass.getuser(), DeviceId(device), TaskId("")
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
    from devices.telemetry.health import judge
    from devices.telemetry.sampler import Sample

    told = device["telemetry"]
    values = {} if told is None else told["values"]
    warm = {name.partition(".")[2]: value for name, value in values.items() if name.startswith("temperature_celsius.")}
    bad = [finding for finding in judge([Sample(0.0, values)]) if finding.level != "ok"]
    bad += [_offence(reason, done["count"], done["last_s"]) for reason, done in device["offences"].items()]
    bad += [_stall(task, r["state"]["counts"]) for task, r in device["tasks"].items() if r["state"] and _stalls(r)]
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
    }.get(reason, reason)
    last = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(last_s))
    fix = "roadcast ca revoke NAME; roadcast broker refresh" if reason == "clone" else "look at the device's log"
    return Finding(reason, "fail" if reason == "clone" else "warn", f"{says} ({count} times, last {last} UTC)", fix)


def _stalls(runs: dict[str, Any]) -> bool:
    """Whether nothing came of a fetch for long, by the device's last state, though its own policy allows it."""
    counts = runs["state"]["counts"]
    return counts.get("fetch_idle_s", 0) >= STALL_S and not counts.get("fetch_held")


def _stall(task: str, counts: dict[str, int]) -> Finding:
    from devices.findings import Finding

    had, size = counts["fetch_bytes"] - counts["fetch_bytes_left"], counts["fetch_bytes"]
    says = f"{task}: nothing of a file came for {counts['fetch_idle_s'] // 60} min; {had} of {size} bytes are there"
    return Finding(
        "fetch-stalls", "warn", says, "is the server up, and does the broker hold its chunks? docs/security.md"
    )


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
    rows += [] if told is None else [(name, f"{value:.6g}") for name, value in sorted(told["values"].items())]
    rows += [(f"{finding.level}: {finding.check}", finding.says) for finding in found["findings"]]
    return table(found["device"], ("what", "found"), rows)


def _when(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at_s))
