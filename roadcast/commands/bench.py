"""``roadcast bench``: measure a model's latency on this machine, compare two results, draw several."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from devices.latency.load import Scenario
from edge_protocol.errors import CheckFailedError, StoreError
from roadcast.output import JsonFlag, emit, progress, table

if TYPE_CHECKING:
    from devices.latency.compare import Row
    from devices.latency.result import Result

app = typer.Typer(no_args_is_help=True, help="Measure latency on this machine, compare results, draw them.")
ResultFile = Annotated[Path, typer.Argument(help="Written by 'bench run --json'.", dir_okay=False)]


@app.command()
def run(
    model: Annotated[Path, typer.Argument(help="Folder of 'export build', or an ONNX file.")],
    *,
    runner: Annotated[Literal["ort", "trt"], typer.Option(help="ONNX Runtime on the CPU, or TensorRT.")] = "ort",
    scenario: Annotated[Scenario, typer.Option(help="How queries are issued, as in MLPerf.")] = "single-stream",
    seconds: Annotated[float, typer.Option(help="Measured at least.", min=0)] = 10.0,
    queries: Annotated[int, typer.Option(help="Measured at least.", min=1)] = 1024,
    warm_up: Annotated[float, typer.Option(help="Seconds before that.", min=0)] = 2.0,
    samples: Annotated[int | None, typer.Option(help="In a query; as the scenario has it without.", min=1)] = None,
    rate: Annotated[float, typer.Option(help="Queries per second of the scenario server.", min=0)] = 0.0,
    threads: Annotated[int, typer.Option(help="That one inference may use.", min=1)] = 1,
    end_to_end: Annotated[bool, typer.Option(help="From a camera's JPEG to an encoded message.")] = False,
    json: Annotated[Path | None, typer.Option(metavar="OUT", help="Write the result with every query.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="OUT.svg", help="Draw the distribution.")] = None,
    loadgen: Annotated[Path | None, typer.Option(metavar="OUT", help="Write a trace as MLPerf LoadGen does.")] = None,
    trtexec: Annotated[Path | None, typer.Option(metavar="OUT", help="Write times as trtexec does.")] = None,
) -> None:
    """Measure a model on this machine."""
    from devices.latency.load import Plan
    from devices.latency.result import write_result
    from devices.latency.traces import write_loadgen, write_trtexec
    from roadcast.bench import report
    from roadcast.bench.running import run_bench

    plan = Plan(
        scenario=scenario, queries=queries, seconds=seconds, warm_up_seconds=warm_up, samples=samples, rate_hz=rate
    )
    progress(f"measuring {model} for {warm_up + seconds:g} s or more")
    result = run_bench(model, plan, threads=threads, end_to_end=end_to_end, runner=runner)
    if json:
        write_result(json, result)
    _write(plot, lambda: report.plot(result))
    _write(loadgen, lambda: write_loadgen(result.raw.starts, result.raw.latencies, result.samples))
    _write(trtexec, lambda: write_trtexec(result.raw.starts, result.raw.latencies))
    emit(result, as_json=False, render=_shown)


@app.command()
def compare(
    first: ResultFile,
    second: ResultFile,
    *,
    fail_on: Annotated[list[str] | None, typer.Option(metavar="FIGURE:±N%", help="Such as p99:+10%; repeat.")] = None,
    json: JsonFlag = False,
) -> None:
    """Set two results side by side; exit 3 when a rule of --fail-on is broken or cannot be judged."""
    from devices.latency.compare import compare as rows_of
    from devices.latency.compare import parse_rule
    from devices.latency.result import read_result

    rules = tuple(parse_rule(text) for text in fail_on or ())
    rows = rows_of(read_result(first), read_result(second), rules)
    emit(rows, json, _compared)
    if broken := [row.broken for row in rows if row.broken]:
        raise CheckFailedError("; ".join(broken))


@app.command()
def report(
    results: Annotated[list[Path], typer.Argument(help="Written by 'bench run --json'.", dir_okay=False)],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT.html", help="Page to write.")],
) -> None:
    """Draw results: distribution, timeline, stages, and models by devices, in one file that needs nothing else."""
    from devices.latency.result import read_result
    from roadcast.bench.report import page

    found = [read_result(path) for path in results]
    _write(out, lambda: page(found))


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

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    found = {"loadgen": read_loadgen, "trtexec": read_trtexec}[kind](text)
    emit(summarise(found.latencies), json, lambda summary: _percentiles("", {"latency": summary}))


def _write(path: Path | None, text: Any) -> None:  # noqa: ANN401 - a function that makes the text
    if path is None:
        return
    try:
        path.write_text(text(), encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}; give another file") from error


def _shown(result: Result) -> Any:  # noqa: ANN401 - rich's renderable, loaded only when drawn
    from rich.console import Group

    subject, sensed = result.subject, result.sensed
    shares = ", ".join(f"{provider} {share:.0%}" for provider, share in subject.providers.items())
    facts = {
        "peak memory": _or_none(result.peak_mb, "MB since the process began" if result.peak_since_start else "MB"),
        "energy": _or_none(result.energy_mj_per_sample, "mJ/sample"),
        "clocks": _or_none(sensed.clock_mhz and sensed.clock_mhz[1], "MHz"),
        "throttled": _or_none(sensed.throttle_events, "times"),
    }
    lines = [
        f"{subject.model}, {subject.precision}, on {subject.board}: ran on {shares}",
        f"{result.samples_per_s:.4g} samples/s; load {result.load_ms:.0f} ms, first query {result.first_ms:.3g} ms",
        "; ".join(f"{name} {fact}" for name, fact in facts.items()),
        *(f"remark: {remark}" for remark in result.remarks),
    ]
    drawn = _percentiles("milliseconds", {"latency": result.latency, **result.stages, "CPU": result.cpu})
    return "\n".join([*lines, drawn]) if isinstance(drawn, str) else Group(*lines, drawn)


def _percentiles(title: str, summaries: dict[str, Any]) -> Any:  # noqa: ANN401 - as above
    first = next(iter(summaries.values()))
    names = [f"p{one.percentile:g}" for one in first.percentiles]
    rows: list[tuple[str | None, ...]] = []
    for name, summary in summaries.items():
        rows.append((name, f"{summary.mean_ms:.4g}", *(f"{one.ms:.4g}" for one in summary.percentiles)))
    bounds = [one.bound_ms for one in first.percentiles]
    rows.append(("latency is at most", None, *(None if bound is None else f"{bound:.4g}" for bound in bounds)))
    return table(title, ("what", "mean", *names), rows)


def _compared(rows: list[Row]) -> Any:  # noqa: ANN401 - as above
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


def _or_none(value: float | None, unit: str) -> str:
    return "not measured" if value is None else f"{value:.4g} {unit}"
