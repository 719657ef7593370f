"""``roadcast release``: look into releases, and push one that was made elsewhere."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from roadcast.output import JsonFlag, emit, table

app = typer.Typer(no_args_is_help=True)
_MOST = 2**31
"""Highest release number that is taken from a command line."""
StateDir = Annotated[Path, typer.Option("--state-dir", help="The server's state folder.")]
Counter = Annotated[int, typer.Argument(min=1, max=_MOST, help="Number of the release.")]
ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="The server's YAML file.")]
Notes = Annotated[str, typer.Option(help="A line for people.")]
Held = Annotated[bool, typer.Option("--hold", help="Wait for: roadcast rollout start.")]
Above = Annotated[int, typer.Option(help="Give it a higher number than this.", min=0, max=_MOST)]
KeysFolder = Annotated[Path | None, typer.Option(help="Folder with the task's key, when the server's has it not.")]
Passphrase = Annotated[Path | None, typer.Option(help="Opens the keys in that folder.")]


@app.callback()
def release() -> None:
    """Look into releases and publish them."""
    logging.getLogger("alembic").setLevel(logging.WARNING)


@app.command("list")
def list_releases(*, state_dir: StateDir, json: JsonFlag = False) -> None:
    """List every release, and where each stands: the fleet's, held back, under way, aborted."""
    from broker_server.status import open_database
    from broker_server.status import release_list as every

    database = open_database(state_dir)
    try:
        emit(every(database), json, _table)
    finally:
        database.close()


@app.command()
def show(
    task: Annotated[str, typer.Argument(help="Name of the task.")],
    counter: Counter,
    *,
    state_dir: StateDir,
    json: JsonFlag = False,
) -> None:
    """Show what a release is listed as, what the judge measured, and every file of every tier."""
    from broker_server.status import open_database, release_details
    from edge_protocol.errors import NotReadyError
    from edge_protocol.ids import TaskId

    database = open_database(state_dir)
    try:
        found = database.release(TaskId(task), counter)
    finally:
        database.close()
    if found is None:
        raise NotReadyError(f"{state_dir}: no release {counter} of {task!r}; see: roadcast release list")
    emit(release_details(found), json, _details)


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="Holds a folder per tier: template, weights, golden, state.")],
    *,
    config: ConfigFile,
    task: Annotated[str, typer.Option(help="Name of the task.")],
    notes: Notes = "",
    hold: Held = False,
    check: Annotated[bool, typer.Option(help="Have every tier answer its golden inputs first.")] = True,
    above: Above = 0,
    keys: KeysFolder = None,
    passphrase_file: Passphrase = None,
    json: JsonFlag = False,
) -> None:
    """Release an artifact folder as the next one of a task, signed; a running server publishes it within seconds.

    With --hold nobody gets it before a rollout brings it: roadcast rollout start TASK/NUMBER.
    """
    from broker_server.config import read_config
    from broker_server.setup import push_release
    from broker_server.status import release_details

    settings = read_config(config, environment=os.environ)
    if check:
        check_answers(folder)
    how = _how(notes, hold, above, keys, passphrase_file)
    emit(release_details(push_release(settings, task, folder, **how)), json, _details)


@app.command()
def again(
    task: Annotated[str, typer.Argument(help="Name of the task.")],
    counter: Counter,
    *,
    config: ConfigFile,
    notes: Notes = "",
    hold: Held = False,
    above: Above = 0,
    keys: KeysFolder = None,
    passphrase_file: Passphrase = None,
    json: JsonFlag = False,
) -> None:
    """Release the files of an earlier release as the task's next one: the way back, for devices take no lower number.

    For what a rollback or an abort cannot do: further back, after the end of a rollout, or with a key from a safe.
    """
    from broker_server.config import read_config
    from broker_server.setup import release_again
    from broker_server.status import release_details

    settings, how = read_config(config, environment=os.environ), _how(notes, hold, above, keys, passphrase_file)
    how["notes"] = notes or f"release {counter} again"
    emit(release_details(release_again(settings, task, counter, **how)), json, _details)


@app.command()
def factory(
    folder: Annotated[Path, typer.Argument(help="Where to write it; /usr/lib/roadcast/factory on the device.")],
    *,
    state_dir: StateDir,
    task: Annotated[str, typer.Option(help="Name of the task.")],
    tier: Annotated[str | None, typer.Option(help="Only for boards of this tier: nano, small or base.")] = None,
    counter: Annotated[
        int | None, typer.Option(min=1, max=_MOST, help="Number of the release; the fleet's without it.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Write a release as the factory model of boards: they boot into it offline, with nothing else on their disk."""
    from broker_server.config import TrustConfig
    from broker_server.keys import Keys
    from broker_server.signed_roles import SignedRoles
    from broker_server.status import open_database
    from broker_server.store.blobs import BlobFolder
    from edge_client.factory import proof_of, write_factory
    from edge_protocol.errors import ConfigError, NotReadyError
    from edge_protocol.ids import TaskId
    from edge_protocol.task import TIERS

    if tier not in {None, *TIERS}:
        raise ConfigError(f"--tier: no tier {tier!r}; one of {', '.join(TIERS)}")
    database = open_database(state_dir)
    try:
        fleets = database.serving(TaskId(task))
        found = fleets if counter is None else database.release(TaskId(task), counter)
    finally:
        database.close()
    if found is None:
        raise NotReadyError(f"{state_dir}: no such release of {task!r}; see: roadcast release list")
    blobs, manifest = BlobFolder(state_dir / "blobs"), found.manifest
    metadata = SignedRoles(state_dir / "tuf", Keys([]), TrustConfig()).files()
    number = write_factory(folder, manifest, proof_of(manifest, TaskId(task), metadata, time.time()), tier, blobs.read)
    said = {"task": task, "release": number, "folder": str(folder)}
    emit(said, json, lambda told: f"{told['folder']}: release {told['release']} of {told['task']}")


@app.command("export-blobs")
def export_blobs(
    folder: Annotated[Path, typer.Argument(help="What a static HTTP server serves; made when it is missing.")],
    *,
    state_dir: StateDir,
    prune: Annotated[bool, typer.Option("--prune", help="Delete blobs in it that nothing names any more.")] = False,
    json: JsonFlag = False,
) -> None:
    """Copy what devices fetch into a plain folder, one file per blob, for their `fetch: {mirror: …}`.

    Run it after each release; the server may run meanwhile. Until a file is there, devices fetch it from the broker.
    """
    from broker_server.blob_export import export_blobs as export
    from broker_server.blob_export import wanted_blobs
    from broker_server.status import open_database
    from broker_server.store.blobs import BlobFolder

    database = open_database(state_dir)
    try:
        wanted = wanted_blobs(database)
    finally:
        database.close()
    counts = export(wanted, BlobFolder(state_dir / "blobs"), folder, prune=prune)
    emit(counts, json, lambda found: "  ".join(f"{name} {count}" for name, count in found.items()))


def check_answers(folder: Path) -> None:
    """Run every tier of an artifact folder on its golden inputs.

    Raises:
        NotReadyError: a file is missing.
        CheckFailedError: a file is broken, or answers differ.
    """
    from broker_server.releases import variants_in
    from devices.runners.ort_runner import OrtRunner
    from edge_protocol.errors import ArtifactError, CheckFailedError, DeploymentError
    from edge_protocol.task import TIERS
    from export.folder import GOLDEN, TEMPLATE, WEIGHTS, read_part
    from export.golden import check_golden

    plain = [folder / tier for tier in TIERS if (folder / tier).is_dir()]
    for place in (tier / variant for tier in plain for variant in ("", *variants_in(tier))):
        template, weights, golden = (read_part(place, name) for name in (TEMPLATE, WEIGHTS, GOLDEN))
        try:
            with OrtRunner(template, weights) as runner:
                check_golden(runner, golden)
        except (ArtifactError, DeploymentError) as error:
            raise CheckFailedError(f"{place}: {error}") from error


def _how(notes: str, hold: bool, above: int, keys: Path | None, passphrase: Path | None) -> dict[str, Any]:  # noqa: FBT001 - the value of --hold
    """What every way to make a release takes."""
    from broker_server.keys import KeyFolder, passphrase_from
    from broker_server.operators import operator

    by = operator()
    more = [KeyFolder(keys, passphrase_from(passphrase))] if keys else []
    held_by = by if hold else ""
    return {"notes": notes, "now": time.time(), "by": by, "held_by": held_by, "above": above, "more_keys": more}


def _table(found: list[dict[str, Any]]) -> Any:  # noqa: ANN401 - whatever rich draws
    made = ["pushed" if r["round"] is None else r["round"] for r in found]
    rows = [(r["task"], r["counter"], by, r["standing"], r["notes"]) for r, by in zip(found, made, strict=True)]
    return table("", ("task", "release", "round", "standing", "notes"), rows)


def _details(found: dict[str, Any]) -> Any:  # noqa: ANN401 - whatever rich draws
    rows = [
        (artifact["tier"], artifact["variant"], artifact["student"], name, file["bytes"], file["sha256"])
        for artifact in found["artifacts"]
        for name, file in artifact["files"].items()
    ]
    title = f"{found['task']}: release {found['counter']}, manifest {found['manifest'][:16]}"
    return table(title, ("tier", "variant", "student", "file", "bytes", "sha256"), rows)
