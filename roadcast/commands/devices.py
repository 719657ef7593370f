"""``roadcast devices``: what this board is, how it is doing, recordings of it; and the boards of a fleet."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from edge_protocol.errors import ConfigError
from roadcast.commands.fit import fit
from roadcast.commands.fleet import app as fleet
from roadcast.output import JsonFlag, emit, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from devices.boards import BoardFacts, Machine
    from devices.boards.power import Power
    from devices.telemetry.sampler import Sample

app = typer.Typer(no_args_is_help=True)
app.command()(fit)
app.add_typer(fleet)
Root = Annotated[
    Path | None, typer.Option(help="Folder of a recorded board, or of a root filesystem; without it this machine.")
]
_GIB = 1 << 30


@app.callback()
def devices() -> None:
    """Look at the board that this runs on, and at those of a fleet."""


@app.command()
def probe(*, root: Root = None, json: JsonFlag = False) -> None:
    """Say what the board is and how it is doing; what it does not say is a dash (null in JSON), never 0."""
    from devices.boards import probe as find_out

    emit(find_out(machine_at(root)), json, _facts)


@app.command()
def record(folder: Annotated[Path, typer.Argument(help="A new folder.")], *, json: JsonFlag = False) -> None:
    """Keep what a probe of this board reads, for tests and for help from afar: no serial number, no picture."""
    from devices.boards import Machine, plant
    from devices.boards import record as keep

    kept = keep(Machine())
    plant(kept, folder)
    said = {"folder": str(folder), "files": len(kept.files), "commands": len(kept.commands)}
    emit(said, json, lambda told: f"{told['files']} files and {told['commands']} commands in {told['folder']}")


@app.command()
def watch(
    *,
    root: Root = None,
    every: Annotated[float, typer.Option(min=0.1, max=86_400, help="Seconds between two samples.")] = 1.0,
    count: Annotated[int, typer.Option(min=0, help="Samples to take; 0 goes on until Ctrl-C.")] = 0,
    state_dir: Annotated[Path | None, typer.Option(help="Folder on the disk whose room is watched.")] = None,
    textfile: Annotated[
        Path | None, typer.Option(help="Prometheus file for node_exporter's textfile collector, such as roadcast.prom.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Sample the board: one line a sample; with --json one JSON object a line, with --textfile metrics as well."""
    from devices.telemetry.sampler import Sampler
    from devices.telemetry.textfile import write_textfile

    sampler = Sampler(machine_at(root), state_dir=state_dir)
    due, taken = time.monotonic(), 0
    while count == 0 or taken < count:
        time.sleep(max(0.0, due - time.monotonic()))
        sample = sampler.sample(time.monotonic())
        due, taken = max(due + every, sample.at_s), taken + 1
        if textfile is not None:
            write_textfile(textfile, sample)
        typer.echo(_line(sample, as_json=json))


@app.command()
def commission(
    *,
    config: Annotated[Path, typer.Option("--config", "-c", help="YAML of the device.")],
    json: JsonFlag = False,
) -> None:
    """Remember what each camera sees now, once its lines are drawn; `roadcast doctor` then tells when it was moved."""
    from devices.doctor.source_checks import first_frame
    from devices.sources import open_source
    from devices.telemetry.scene import Scene
    from edge_client.cameras import scene_file
    from roadcast.agent import load_device

    device = load_device(config)
    kept = {}
    for source in device.sources:
        with open_source(source.uri, name=source.name) as opened:
            image = first_frame(source.name, opened).image
        if image is not None:
            kept[source.name] = str(scene_file(Path(device.state_dir), source.name))
            Scene.of(image).save(Path(kept[source.name]))
    emit(kept, json, lambda found: table("", ("camera", "scene"), found.items()))


def _line(sample: Sample, *, as_json: bool) -> str:
    if as_json:
        return msgspec.json.encode(sample.values).decode()
    return "  ".join(f"{name} {value:.6g}" for name, value in sample.values.items())


@app.command("support-bundle")
def support_bundle(
    *,
    config: Annotated[Path, typer.Option("--config", "-c", help="YAML of the device.")],
    out: Annotated[Path | None, typer.Option(help="The archive, a new file.")] = None,
    json: JsonFlag = False,
) -> None:
    """On the device: pack what helps from afar, without secrets, frames, labels or weights; look into it, then send."""
    from devices.boards import Machine
    from devices.boards import record as keep
    from edge_client.support_bundle import check_new, state_files, write_bundle
    from roadcast.agent import load_device
    from roadcast.commands.doctor import examine
    from roadcast.commands.version import versions

    device, wrong, machine, now = None, "", Machine(), time.time()
    try:
        device = load_device(config)
    except ConfigError as error:  # which may be what help is needed with
        wrong = str(error)
    path = out or Path(f"roadcast-support-{device.device if device else platform.node()}-{int(now)}.tar.gz")
    check_new(path)
    journal = machine.run("journalctl", "--no-pager", "--output=short-iso", "--unit=roadcast-*", "--lines=2000")
    parts = {
        "board.json": _json(keep(machine)),
        "device.yaml": _text(config),
        "doctor.json": _json(examine(device, None)),
        "journal.txt": journal or "no journal can be read here\n",
        "state.json": _json(state_files(Path(device.state_dir)) if device else ()),
        "versions.json": _json(versions()),
    }
    if wrong:
        parts["configuration.txt"] = f"{wrong}\n"
    said = {"bundle": str(path), "bytes": write_bundle(path, parts, now), "parts": ", ".join(sorted(parts))}
    emit(said, json, lambda told: f"{told['bundle']}: {told['bytes']} bytes of {told['parts']}")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return f"{error}\n"


def _json(found: object) -> str:
    return msgspec.json.format(msgspec.json.encode(found)).decode() + "\n"


def machine_at(root: Path | None) -> Machine:
    """This machine, or the one that was recorded there."""
    from devices.boards import Machine, recorded

    return Machine() if root is None else recorded(root)


def _facts(facts: BoardFacts) -> RenderableType:
    from devices.boards import jetpack_of

    jetpack = jetpack_of(facts.l4t.major) if facts.l4t else None
    rows = [
        ("board", facts.board),
        ("model", facts.model),
        ("parts", " ".join(facts.parts) or None),
        ("processor", _join(facts.machine, facts.processor, facts.cores and f"{facts.cores} cores")),
        ("memory", _size(facts.memory.total)),
        ("software", _join(facts.kernel and f"Linux {facts.kernel}", facts.python and f"Python {facts.python}")),
        ("L4T", _join(facts.l4t and str(facts.l4t), jetpack and f"JetPack {jetpack.jetpack}")),
        *_conditions(facts),
    ]
    return table("", ("what", "found"), rows)


def _conditions(facts: BoardFacts) -> list[tuple[str, str | None]]:
    mode, gpu, throttling = facts.power_mode, facts.gpu, facts.throttling
    slowed = {True: ", ".join(throttling.reasons), False: "no", None: None}[throttling.active]
    events = None if throttling.events is None else f"{throttling.events} events since the start"
    warm = [f"{zone.name} {zone.celsius:.1f} °C" for zone in facts.zones if zone.celsius is not None]
    load = gpu and gpu.load is not None and f"{gpu.load:.0%}"
    return [
        ("power mode", _join(mode and mode.name, mode and mode.number is not None and f"number {mode.number}")),
        ("power", _watts(facts.power)),
        ("temperatures", _join(*warm)),
        ("throttled", _join(slowed, events)),
        ("GPU", _join(load, gpu and gpu.clock_hz and f"{gpu.clock_hz / 1e6:.0f} MHz")),
        *(("disk", _join(disk.name, disk.kind, _size(disk.bytes), _wear(disk.wear))) for disk in facts.disks),
        ("clock", {True: "synchronised", False: "not synchronised", None: None}[facts.clock.synchronised]),
        *(("camera", _join(camera.device, camera.bus, camera.name)) for camera in facts.cameras),
        ("modem", _join(facts.modem and facts.modem.interface, facts.modem and facts.modem.state)),
    ]


def _watts(power: Power | None) -> str | None:
    if power is None or power.watts is None:
        return None
    return f"{power.watts:.2f} W" + (", estimated: a sum of rails" if power.estimated else "")


def _wear(wear: float | None) -> str | None:
    return None if wear is None else f"{wear:.0%} worn"


def _join(*parts: object) -> str | None:
    return ", ".join(str(part) for part in parts if part) or None


def _size(count: int | None) -> str | None:
    return None if count is None else f"{count / _GIB:.1f} GiB"
