"""`roadcast flash --ssh`: which targets are meant, how to get in, the live table, and what is told at the end."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import typer

from devices.provision.changes import Change
from devices.provision.site import Site, SshConfig
from edge_protocol.config import load_config
from edge_protocol.errors import ConfigError, ExitCode, RoadcastError
from roadcast.output import stderr

if TYPE_CHECKING:
    from rich.table import Table

    from devices.provision.connection import Login
    from devices.provision.ssh import Job, Place

PASSWORD = "ROADCAST_SSH_PASSWORD"  # noqa: S105  # the name of a variable
_ADDRESS = re.compile(
    r"(?:(?P<device>[^=@:]+)=)?(?:(?P<user>[^@]+)@)?(?P<host>\[[0-9A-Fa-f:.%]+\]|[^:\[\]]+)(?::(?P<port>[0-9]+))?"
)
_REDRAW_S = 0.2


class Flashed(msgspec.Struct, frozen=True):
    """How it went on one device.

    Attributes:
        device: its name.
        host: where it was reached.
        outcome: ``written``, ``unchanged``, ``planned`` in a dry run with something to write, or ``failed``.
        changes: at every path of the plan; none when it failed.
        error: what went wrong.
    """

    device: str
    host: str
    outcome: Literal["written", "unchanged", "planned", "failed"]
    changes: tuple[Change, ...] = ()
    error: str | None = None


def targets_of(site: Site, asked: str, device: str | None) -> dict[str, SshConfig]:
    """Find out which devices are meant, and where they are.

    Args:
        site: with its inventory, `ssh`.
        asked: ``all``, or names of the inventory and addresses, ``[DEVICE=][USER@]HOST[:PORT]``, between commas.
        device: which device the one address without a name is; None for the site's only one.

    Raises:
        ConfigError: an address that is none, a device that is not in the site, one that is meant twice, or a `device`
            that says nothing of what is asked.
    """
    found: dict[str, SshConfig] = {}
    if asked == "all" and not site.ssh:
        raise ConfigError("--ssh all: the site has no inventory; give it one: ssh: {cam-1: {host: 10.0.0.5}}")
    words = list(site.ssh) if asked == "all" else asked.split(",")
    if device is not None and (asked == "all" or len(words) > 1 or asked in site.ssh or _parsed(asked)[0]):
        raise ConfigError(f"--device {device}: only says which device one address is; --ssh {asked} says it itself")
    for word in words:
        name, target = (word, site.ssh[word]) if word in site.ssh else _address(site, word, device)
        site.tree_of(name)
        if name in found:
            raise ConfigError(f"--ssh: {name} is meant twice; write DEVICE=HOST for each")
        found[name] = target
    return found


def site_at(file: Path | None) -> Site | None:
    """Read a site file, but not what it names; None without one.

    Raises:
        ConfigError: it cannot be read, or is wrong.
    """
    if file is None:
        return None
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"site: {file} cannot be read: {error.strerror or error}") from error
    return load_config(text, Site, where=str(file))


def login_of(known_hosts: Path, identity: Path | None, password_file: Path | None, *, ask: bool) -> Login:
    """How to get in, from the options of a command; an identity beats the environment's password.

    Raises:
        ConfigError: two ways in, or as `read_password` says.
    """
    from devices.provision.connection import Login

    if sum((identity is not None, password_file is not None, ask)) > 1:
        raise ConfigError("--identity, --password-file and --ask-password are ways in; name one of them")
    password = None if identity is not None else read_password(password_file, ask=ask)
    return Login(known_hosts.expanduser(), identity, password)


def target_at(asked: str, site: Site | None) -> SshConfig:
    """Find out where one target is.

    Args:
        asked: a name of the site's inventory, or ``[USER@]HOST[:PORT]``.
        site: None without one.

    Raises:
        ConfigError: it is neither.
    """
    if site is not None and asked in site.ssh:
        return site.ssh[asked]
    return _parsed(asked)[1]


def _address(site: Site, word: str, device: str | None) -> tuple[str, SshConfig]:
    """A device elsewhere than the inventory has it keeps its host key."""
    named, target = _parsed(word)
    name = named or device or str(site.tree_of(None).get("device"))
    known = site.ssh.get(name, target)
    return name, msgspec.structs.replace(target, fingerprint=known.fingerprint)


def _parsed(word: str) -> tuple[str | None, SshConfig]:
    parts = _ADDRESS.fullmatch(word)
    if parts is None:
        raise ConfigError(f"--ssh: {word!r} is neither in a site's inventory nor [DEVICE=][USER@]HOST[:PORT]")
    given = {name: text for name, text in parts.groupdict().items() if text is not None}
    name = given.pop("device", None)
    try:
        return name, msgspec.convert({**given, "host": given["host"].strip("[]")}, SshConfig, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"--ssh: {word!r}: {error}") from error


def read_password(file: Path | None, *, ask: bool) -> str | None:
    """Take the password from a file, the environment or the terminal; None when there is none.

    Raises:
        ConfigError: the file cannot be read, or everybody may read it.
    """
    if file is not None:
        return read_secret(file, "--password-file").rstrip("\n")
    if ask:
        return str(typer.prompt("Password of the targets", hide_input=True, err=True))
    return os.environ.get(PASSWORD) or None


def read_secret(file: Path, what: str) -> str:
    """Read a file that only its owner may read.

    Raises:
        ConfigError: it cannot be read, or everybody may read it.
    """
    try:
        if file.stat().st_mode & 0o077:
            raise ConfigError(f"{what}: others may read {file}; run: chmod 600 {file}")
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what}: {file} cannot be read: {error}") from error


def flash_fleet(
    jobs: Sequence[Job], login: Login, place: Place, *, at_once: int, dry_run: bool
) -> tuple[list[Flashed], ExitCode]:
    """Flash all, with a table for whoever watches.

    Returns:
        How it went, and the exit code: PARTIAL when some failed, that of the first error when all did.

    Raises:
        RoadcastError: there was one target, and it failed.
    """
    from devices.provision.ssh import flash_all

    with _watched([job.device for job in jobs]) as told:
        results = asyncio.run(flash_all(jobs, login, place, at_once=at_once, dry_run=dry_run, told=told))
    errors = [result for result in results if isinstance(result, RoadcastError)]
    if len(jobs) == 1 and errors:
        raise errors[0]
    flashed = [_flashed(job, result, dry_run=dry_run) for job, result in zip(jobs, results, strict=True)]
    if len(errors) == len(jobs):
        return flashed, errors[0].exit_code
    return flashed, ExitCode.PARTIAL if errors else ExitCode.OK


def _flashed(job: Job, result: tuple[Change, ...] | RoadcastError, *, dry_run: bool) -> Flashed:
    if isinstance(result, RoadcastError):
        return Flashed(job.device, job.target.host, "failed", error=str(result))
    if all(change.action == "keep" for change in result):
        return Flashed(job.device, job.target.host, "unchanged", result)
    return Flashed(job.device, job.target.host, "planned" if dry_run else "written", result)


@contextmanager
def _watched(devices: Sequence[str]) -> Iterator[Callable[[str, str], None]]:
    """Show what each device is at, on a terminal; say nothing in a pipe."""
    if not sys.stderr.isatty():
        yield lambda _device, _state: None
        return
    from rich.live import Live

    states = dict.fromkeys(devices, "waiting")
    drawn = 0.0
    with Live(_drawn(states), console=stderr(), auto_refresh=False, transient=True) as live:

        def told(device: str, state: str) -> None:
            nonlocal drawn
            states[device] = state
            if time.monotonic() > drawn + _REDRAW_S:
                drawn = time.monotonic()
                live.update(_drawn(states), refresh=True)

        yield told


def _drawn(states: dict[str, str]) -> Table:
    from rich import box
    from rich.table import Table

    shown = Table("device", "state", box=box.SIMPLE_HEAD, pad_edge=False)
    for device, state in states.items():
        shown.add_row(device, state)
    return shown


def summary(flashed: Sequence[Flashed]) -> tuple[str, list[tuple[object, ...]]]:
    """A title and a row for each device."""
    counts = Counter(one.outcome for one in flashed)
    rows: list[tuple[object, ...]] = []
    for one in flashed:
        made = sum(change.action != "keep" for change in one.changes)
        rows.append((one.device, one.host, one.outcome, made if one.error is None else None, one.error))
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items()), rows
