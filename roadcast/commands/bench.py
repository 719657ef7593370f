"""``roadcast bench``: measure a model's latency (`bench_run`), compare two results, draw several."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from edge_protocol.errors import CheckFailedError
from roadcast.commands.bench_run import run, write_text
from roadcast.output import JsonFlag, emit, table, warn

if TYPE_CHECKING:
    from rich.console import RenderableType

    from devices.latency.compare import Row

app = typer.Typer(no_args_is_help=True, help="Measure latency here or on a target, compare results, draw them.")
ResultFile = Annotated[Path, typer.Argument(help="Written by 'bench run --json'.", dir_okay=False)]


app.command()(run)


@app.command()
def compare(
    first: ResultFile,
    second: ResultFile,
    *,
    fail_on: Annotated[list[str] | None, typer.Option(metavar="FIGURE:±N%", help="Such as p99:+10%; repeat.")] = None,
    across: Annotated[bool, typer.Option("--across", help="Judge two models, or other stages, as well.")] = False,
    json: JsonFlag = False,
) -> None:
    """Set two results side by side; exit 3 when a rule of --fail-on is broken or cannot be judged.

    What else differs (board, runner, precision, threads, …) is said on stderr; two models are not judged.
    """
    from devices.latency.compare import compare as rows_of
    from devices.latency.compare import differences, parse_rule
    from devices.latency.result import read_result

    rules = tuple(parse_rule(text) for text in fail_on or ())
    results = read_result(first), read_result(second)
    rows = rows_of(*results, rules, across=across)
    for difference in differences(*results):
        warn(f"not measured alike: {difference}")
    emit(rows, json, _compared)
    if broken := [row.broken for row in rows if row.broken]:
        raise CheckFailedError("; ".join(broken))


@app.command()
def report(
    results: Annotated[list[Path], typer.Argument(help="Written by 'bench run --json'.", dir_okay=False)],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT.html", help="Page to write.")],
) -> None:
    """Draw runs and soaks: distribution, latency, heat and clocks over time, stages, models by devices; in one file."""
    from devices.latency.result import Result, read_document
    from devices.latency.soak import Soak
    from roadcast.bench.report import page

    found = cast("list[Result | Soak]", [read_document(path, Result | Soak) for path in results])
    write_text(out, lambda: page(found))


@app.command()
def trace(
    path: Annotated[Path, typer.Argument(help="mlperf_log_trace.json, or a file of trtexec.", dir_okay=False)],
    *,
    kind: Annotated[Literal["loadgen", "trtexec"], typer.Option("--from", help="What wrote it.")],
    json: JsonFlag = False,
) -> None:
    """Summarise a trace that MLPerf LoadGen or trtexec wrote, with bounds."""
    from devices.latency.result import summarise
    from devices.latency.traces import read_loadgen, read_trtexec
    from edge_protocol.errors import DataError
    from roadcast.bench.show import percentiles

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    try:
        found = {"loadgen": read_loadgen, "trtexec": read_trtexec}[kind](text)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    emit(summarise(found.latencies), json, lambda summary: percentiles("", {"latency": summary}))


def _compared(rows: list[Row]) -> RenderableType:
    def text(value: float | None) -> str | None:
        return None if value is None else f"{value:.4g}"

    cells = [
        (
            row.figure,
            text(row.first),
            text(row.second),
            None if row.change is None else f"{row.change:+.1%}",
            row.broken,
        )
        for row in rows
    ]
    return table("", ("figure", "first", "second", "change", "broken"), cells)
