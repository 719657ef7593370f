"""``roadcast client``: run one device, check its configuration, say what it has learnt and what samples show."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_protocol.errors import ConfigError, StoreError
from roadcast import enrolment
from roadcast.output import JsonFlag, emit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_client.config import DeviceConfig
    from edge_client.drift_watch import DriftFile
    from edge_client.jobs import TrainResult

app = typer.Typer(no_args_is_help=True)
ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="YAML of the device; see `roadcast client schema`.")]
StateDir = Annotated[Path | None, typer.Option(help="Where the device keeps everything, instead of the file's.")]


@app.callback()
def client() -> None:
    """Run one device: answer frames, learn, report."""


@app.command()
def run(
    *,
    config: ConfigFile,
    state_dir: StateDir = None,
    device: Annotated[str | None, typer.Option(help="Name of the device, instead of the file's.")] = None,
    json: JsonFlag = False,
) -> None:
    """Serve until Ctrl-C or SIGTERM; say at the end what was counted."""
    from roadcast.agent import serve

    serve(config, state_dir, device, json=json)


@app.command()
def check(*, config: ConfigFile, state_dir: StateDir = None, json: JsonFlag = False) -> None:
    """Read the configuration, its task and the addresses of its sources; open the commissioning pack; start nothing."""
    from edge_client.configured import check_configuration
    from roadcast.agent import load_device

    found = load_device(config, state_dir)
    spec = check_configuration(found)
    said = {
        "device": found.device,
        "fleet": found.fleet,
        "task": spec.name,
        "student": spec.students[found.tier],
        "sources": [source.name for source in found.sources],
    }
    emit(said, json, lambda told: f"{told['device']} of {told['fleet']}: {told['task']} with {told['student']}")


@app.command()
def learning(
    *,
    config: ConfigFile,
    state_dir: StateDir = None,
    pictures: Annotated[Path | None, typer.Option(help="Write the hard examples into this folder, as PNG.")] = None,
    json: JsonFlag = False,
) -> None:
    """Say how the head was chosen, what that cost, what has drifted and which samples are hard; the agent may run."""
    from edge_client.drift_watch import read_drift
    from edge_client.jobs import read_result
    from edge_client.lessons import LESSON
    from edge_client.stored import kept_names
    from roadcast.agent import load_device

    device = load_device(config, state_dir)
    state = Path(device.state_dir)
    if not (state / LESSON).exists():
        raise StoreError(f"{state}: nothing was learnt here yet; the first round or release that finds samples does it")
    found, drift, kept = read_result(state, LESSON), read_drift(state / "drift.json"), kept_names(state / "replay.db")
    said = {
        "head": found.choice,
        "cost": found.cost,
        "left_out": found.left_out,
        "drift_alarms": drift.total,
        "drift": drift.alarms,
        "hard": [each for each in found.hard if each.sample in kept],
    }
    if pictures is not None:
        _draw([each.sample for each in found.hard], device, pictures)
    emit(said, json, lambda _: _learning(found, drift, kept))


@app.command()
def label(
    sample: Annotated[str, typer.Argument(help="Name of a sample, as `roadcast client learning` tells it.")],
    name: Annotated[str, typer.Argument(metavar="LABEL", help="What it shows: a label of the task.")],
    *,
    config: ConfigFile,
    state_dir: StateDir = None,
    json: JsonFlag = False,
) -> None:
    """Say what a kept sample shows, in the device's `labels.file`; a running agent learns from it, or the next one."""
    from edge_client.labels import LabelFile
    from edge_client.stored import kept_names
    from edge_models.tasks import load_task
    from roadcast.agent import load_device

    device = load_device(config, state_dir)
    state, labels = Path(device.state_dir), load_task(device.task).labels
    if device.labels.file is None:
        raise ConfigError(f"{config}: labels.file is null, so the agent reads none; name one and restart it")
    if name not in labels:
        raise ConfigError(f"{name!r} is no label of task {device.task!r}; it has {', '.join(labels) or 'none'}")
    if sample not in kept_names(state / "replay.db"):
        raise StoreError(f"{state}: no sample {sample!r} is kept (any more); `roadcast client learning` lists some")
    path = state / device.labels.file
    LabelFile(path).append(sample, name)
    said = {"sample": sample, "label": name, "file": str(path)}
    emit(said, json, lambda told: f"{told['sample']}: {told['label']}, in {told['file']}")


def _draw(samples: Sequence[str], device: DeviceConfig, folder: Path) -> None:
    """Write the pictures that are still kept, each in a file of its sample's name.

    Raises:
        ConfigError: the task's samples are no pictures.
        StoreError: the store cannot be read, or the folder cannot be written.
    """
    from devices.opencv import opencv
    from edge_client.stored import read_named
    from edge_models.tasks import load_task
    from edge_protocol.task import ImageInput

    spec = load_task(device.task)
    if not isinstance(spec.input, ImageInput):
        raise ConfigError(f"task {device.task!r}: its samples are windows of readings, which no picture shows")
    kept = read_named(Path(device.state_dir) / "replay.db", spec, samples)
    for sample, image in zip(kept.names, kept.samples.raw, strict=True):
        path = folder.joinpath(*(part for part in f"{sample}.png".split("/") if part not in {"", ".."}))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(opencv().imencode(".png", image[..., ::-1])[1].tobytes())
        except OSError as error:
            raise StoreError(f"{path}: {error}; the pictures after it were not written") from error


def _learning(found: TrainResult, drift: DriftFile, kept: set[str]) -> str:
    choice, cost = found.choice, found.cost
    scores = [("shared", choice.shared), *choice.tried.items()]
    lines = [f"serves: {choice.head if choice.chosen == 'personal' else 'shared'} head"]
    lines += [
        f"  {name}: " + "  ".join(f"{key} {value:.4g}" for key, value in each.items()) for name, each in scores if each
    ]
    if cost is not None:
        lines.append("cost: " + "  ".join(f"{name[6:]} {value:.4g}" for name, value in cost.values().items()))
        lines += ["  energy not measured"] if cost.energy_j is None else []
    if found.left_out:
        lines.append(f"left out: {found.left_out} samples of which the trunk makes no finite features")
    lines.append(f"drift alarms: {drift.total}")
    lines += [f"  {at.hour:02d} h UTC, {at.condition}: {at.doubt:.3g}, usually {at.usual:.3g}" for at in drift.alarms]
    hard = [each for each in found.hard if each.sample in kept]
    lines.append(f"hard examples: {len(hard)}")
    lines += [
        f"  {each.sample}  {each.own or 'forecast'}/{each.shared or 'forecast'}  unsure {each.unsure:.2f}  "
        f"apart {each.apart:.2f}{'' if each.labelled else '  unlabelled'}"
        for each in hard
    ]
    return "\n".join(lines)


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
    """Make this device's key here, and get its certificate: with a token over HTTPS, or by files; safe to repeat."""
    from roadcast.agent import load_device

    found = load_device(config)
    enrolment.enrol(
        found.broker.identity,
        found.device,
        enrolment.Way(token=token, csr_out=csr_out, install=install, authority=authority),
        json=json,
    )


@app.command()
def renew(*, config: ConfigFile, force: enrolment.Force = False, json: JsonFlag = False) -> None:
    """Renew the certificate when a third of its life or less is left; for a timer. A running agent takes it up."""
    from roadcast.agent import load_device

    found = load_device(config)
    enrolment.renew(found.broker.identity, found.device, force=force, json=json)


@app.command()
def schema(*, json: JsonFlag = True) -> None:  # noqa: ARG001  # a schema is JSON with and without the flag
    """Print the JSON Schema of the configuration, for editors."""
    from edge_client.config import DeviceConfig
    from edge_protocol.config import schema as schema_of

    typer.echo(jsonlib.dumps(schema_of(DeviceConfig), indent=2))
