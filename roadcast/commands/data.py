"""``roadcast data``: list, check, import and simulate data packs."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any

import typer

from edge_protocol.errors import ExitCode
from roadcast.output import JsonFlag, emit, progress, table, warn

app = typer.Typer(no_args_is_help=True)
_LICENCE = 60

DataOption = Annotated[
    Path | None,
    typer.Option("--data", help="Folder of packs; else $ROADCAST_DATA, data/, ../shared/data, or simulated."),
]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Where to write.")]


@app.command("list")
def list_(data: DataOption = None, *, json: JsonFlag = False) -> None:
    """Show the cards of the packs that are found, and say where they were found."""
    from roadcast.data.catalogue import list_packs
    from roadcast.data.find import find_data_dir

    location = find_data_dir(data)
    packs = list_packs(location.path) if location.path else []
    found = {"origin": location.origin, "path": location.path and str(location.path.resolve()), "packs": packs}

    def render(_: dict[str, Any]) -> Any:  # noqa: ANN401 - text or a rich table
        if location.path is None:
            return f"no packs found: the {location.origin} will be used (`roadcast data simulate -o DIR` writes it)"
        rows = [
            (pack.file, f"{pack.bytes / 1e6:.1f} MB", pack.title, shorten(pack.licence, _LICENCE), pack.problem)
            for pack in packs
        ]
        title = f"{location.path.resolve()} (from {location.origin})"
        return table(title, ("file", "size", "what", "licence", "problem"), rows)

    emit(found, json, render)


@app.command()
def check(
    pack: Annotated[Path, typer.Argument(help="An .npz data pack.")],
    *,
    json: JsonFlag = False,
) -> None:
    """Open a pack, hold it against its card, and say what is in it."""
    from roadcast.data.catalogue import check_pack

    _show(check_pack(pack), as_json=json)


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="A folder with one sub-folder of images per class, or a CSV file.")],
    out: OutOption,
    title: Annotated[str, typer.Option(help="One line for the card.")] = "",
    licence: Annotated[str, typer.Option(help="Licence, for the card.")] = "",
    size: Annotated[int, typer.Option(min=8, max=1024, help="Pixels a side of imported images.")] = 64,
    test_share: Annotated[float, typer.Option(min=0, max=0.9, help="Part of each class kept for testing.")] = 0.2,
    task: Annotated[
        str | None, typer.Option(help="Task (a name or YAML file) that takes the records a.json beside images a.jpg.")
    ] = None,
    unit: Annotated[str, typer.Option(help="Unit of the readings of a CSV file.")] = "",
    interval_s: Annotated[float | None, typer.Option(min=0.001, help="Seconds between rows of a CSV file.")] = None,
    *,
    json: JsonFlag = False,
) -> None:
    """Make a pack from an image folder or a CSV file; exit code 5 when a part of it could not be read."""
    from devices.packs import Pack, save_pack
    from edge_models.tasks import load_task
    from roadcast.data.catalogue import check_pack
    from roadcast.data.importing import Skipped, import_images, import_table

    progress(f"reading {source}")
    made: tuple[Pack, Skipped]
    if source.suffix.lower() == ".csv":
        made = import_table(source, unit=unit, interval_s=interval_s)
    else:
        made = import_images(source, size=size, test_share=test_share, spec=load_task(task) if task else None)
    pack, skipped = made
    save_pack(out, pack, title=title or f"imported from {source.name}", source=source.name, licence=licence)
    _show(check_pack(out), as_json=json)
    if skipped.reasons:
        warn(str(skipped))
        raise typer.Exit(ExitCode.PARTIAL)


@app.command()
def simulate(
    out: OutOption,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same roadside.")] = 0,
    per_class: Annotated[int, typer.Option(min=5, max=20_000, help="Vehicle crops of each class.")] = 300,
    days: Annotated[int, typer.Option(min=1, max=60, help="Days of traffic.")] = 7,
    *,
    json: JsonFlag = False,
) -> None:
    """Write the built-in simulated roadside as packs: rendered vehicles, traffic speeds, a road clip."""
    from roadcast.simulated import simulate_roadside

    progress("simulating; this takes some seconds")
    files = [str(file) for file in simulate_roadside(out, seed=seed, per_class=per_class, days=days)]
    emit(files, json, "\n".join)


def _show(checked: Any, *, as_json: bool) -> None:  # noqa: ANN401 - a Checked, imported only when needed
    def render(_: object) -> Any:  # noqa: ANN401 - text or a rich table
        shape = " x ".join(map(str, checked.shape))
        rows = [("kind", checked.kind), ("shape", shape), *checked.facts.items(), ("sha256", checked.hash)]
        return table(checked.file, ("what", "value"), rows)

    emit(checked, as_json, render)
