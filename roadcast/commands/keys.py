"""``roadcast keys``: make the keys that sign for a fleet, give a role other ones, and say until when all is good."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_protocol.errors import CheckFailedError, ConfigError, NotReadyError
from roadcast.output import JsonFlag, emit, table, warn

if TYPE_CHECKING:
    from broker_server.config import ServerConfig
    from broker_server.keys import KeyFolder

app = typer.Typer(no_args_is_help=True)
ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="The server's YAML file.")]
Safe = Annotated[
    Path | None,
    typer.Option("--safe", help="Folder for the keys of root and targets, such as a stick that lies in a safe."),
]
More = Annotated[list[Path] | None, typer.Option("--keys", help="Another folder with keys; may be given repeatedly.")]
PassphraseFile = Annotated[
    Path | None, typer.Option(help="Opens and seals keys outside the server's folder; asked for when left out.")
]
Plain = Annotated[bool, typer.Option("--plain", help="Keys outside the server's folder are not encrypted.")]


@app.callback()
def keys() -> None:
    """Make, rotate and look at the keys that sign for a fleet."""


@app.command()
def init(
    *,
    config: ConfigFile,
    safe: Safe = None,
    root_keys: Annotated[int, typer.Option(min=1, max=20, help="Number of root keys.")] = 1,
    threshold: Annotated[int, typer.Option(min=1, help="Root keys that must sign the next root.")] = 1,
    passphrase_file: PassphraseFile = None,
    plain: Plain = False,
    json: JsonFlag = False,
) -> None:
    """Make every key and sign the first root; where there is one, sign for the tasks that are new to the server."""
    from broker_server.key_setup import begin, log_change
    from broker_server.operators import operator

    if threshold > root_keys:
        raise ConfigError(f"--threshold {threshold}: there will be {root_keys} root keys")
    settings = _settings(config)
    folder = _folder(safe, passphrase_file, plain=plain) if safe else None
    now = time.time()
    roles = begin(settings, now, safe=folder, root_keys=root_keys, threshold=threshold)
    log_change(settings, now, operator(), f"init: {', '.join(row['role'] for row in roles.status())} sign")
    if folder is None:
        warn(f"root and targets can sign from {settings.keys_dir}; keep them elsewhere with --safe")
    if settings.key_passphrase_file is None:
        warn(f"the keys in {settings.keys_dir} are not encrypted; key_passphrase_file names a passphrase")
    rows = roles.status()
    said = {"trusted_root": str(roles.newest_root), "roles": rows}
    emit(said, json, lambda found: _table(rows, f"give devices {found['trusted_root']}"))


@app.command()
def rotate(
    role: Annotated[str, typer.Argument(help="root, targets, snapshot, timestamp, or the name of a task.")],
    *,
    config: ConfigFile,
    safe: Safe = None,
    more: More = None,
    count: Annotated[int, typer.Option(min=1, max=20, help="Number of new keys.")] = 1,
    threshold: Annotated[int, typer.Option(min=1, help="Of the new keys must sign.")] = 1,
    same: Annotated[bool, typer.Option("--same", help="Sign root again with the keys it has, before it ends.")] = False,
    passphrase_file: PassphraseFile = None,
    plain: Plain = False,
    json: JsonFlag = False,
) -> None:
    """Give a role new keys, in place of those it has; a running server publishes it within seconds.

    It takes the old keys of root, or for a task the key of targets: name their folders with --safe and --keys. Devices
    follow by themselves, also when they were away for several rotations. Afterwards remove the old key files.
    """
    from broker_server.key_setup import Rotation, log_change
    from broker_server.key_setup import rotate as give
    from broker_server.operators import operator

    if threshold > count or (same and role != "root"):
        raise ConfigError("--threshold is at most --count, and --same is for root")
    settings = _settings(config)
    folder = _folder(safe, passphrase_file, plain=plain) if safe else None
    others = _folders(more, passphrase_file, plain=plain)
    rotation, now = Rotation(role, 0 if same else count, threshold), time.time()
    roles = give(settings, rotation, now, safe=folder, more=others)
    found = roles.status()
    log_change(settings, now, operator(), f"{role} signed by {_signers(found, role)} from now on")
    emit(found, json, lambda found: _table(found, f"root: {roles.newest_root}"))


@app.command()
def status(
    *,
    config: ConfigFile,
    more: More = None,
    passphrase_file: PassphraseFile = None,
    plain: Plain = False,
    json: JsonFlag = False,
) -> None:
    """Say until when each role is good, by which keys, and which of them are here.

    Exit code 3 when a device would refuse it: expired, signed by other keys or by a clock that was ahead, or mixed.
    """
    from broker_server.key_setup import refusals, signed_roles

    others = _folders(more, passphrase_file, plain=plain)
    roles = signed_roles(_settings(config), others)
    found = roles.status()
    emit(found, json, lambda rows: _table(rows, f"root: {roles.newest_root}"))
    if said := refusals(roles, time.time()):
        raise CheckFailedError(
            f"devices take no release: {'; '.join(said)}. A running server signs again what it has the keys of; "
            f"else: roadcast keys rotate ROLE"
        )


def _signers(rows: list[dict[str, Any]], role: str) -> str:
    """How many of which keys sign for a role."""
    row = next(row for row in rows if row["role"] in {role, f"task-{role}"})
    return f"{row['threshold']} of {', '.join(keyid[:8] for keyid in row['keys'])}"


def _settings(path: Path) -> ServerConfig:
    from broker_server.config import read_config

    return read_config(path, environment=os.environ)


def _folders(paths: list[Path] | None, passphrase_file: Path | None, *, plain: bool) -> list[KeyFolder]:
    """Further folders with keys.

    Raises:
        NotReadyError: one has none.
    """
    for path in paths or ():
        if not (path / "keys.json").exists():
            raise NotReadyError(f"{path}: no keys here (no keys.json); is the medium mounted?")
    return [_folder(path, passphrase_file, plain=plain) for path in paths or ()]


def _folder(path: Path, passphrase_file: Path | None, *, plain: bool) -> KeyFolder:
    """A folder outside the server's, with its passphrase."""
    from broker_server.keys import KeyFolder, passphrase_from

    if passphrase_file is not None or plain:
        return KeyFolder(path, passphrase_from(passphrase_file))
    if not sys.stdin.isatty():
        raise ConfigError(f"keys in {path}: give --passphrase-file, or --plain for keys that are not encrypted")
    return KeyFolder(path, _asked(path))


def _asked(folder: Path) -> Callable[[str], str]:
    known: list[str] = []

    def ask(_file: str) -> str:
        if not known:
            making = not (folder / "keys.json").exists()
            known.append(typer.prompt(f"Passphrase of {folder}", hide_input=True, confirmation_prompt=making, err=True))
        return known[0]

    return ask


def _table(rows: list[dict[str, Any]], title: str) -> Any:  # noqa: ANN401 - whatever rich draws
    cells = [
        (
            row["role"],
            row["version"],
            f"{datetime.fromtimestamp(row['expires_s'], timezone.utc):%F %R}",
            f"{row['threshold']} of {len(row['keys'])}",
            ", ".join(f"{keyid[:8]}{'' if here else ' (elsewhere)'}" for keyid, here in row["keys"].items()),
        )
        for row in rows
    ]
    return table(title, ("role", "version", "good until, UTC", "must sign", "keys"), cells)
