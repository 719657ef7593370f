"""``roadcast bench run``: measure a model here or on a target over SSH, show it, and write it as asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from devices.latency.load import Scenario
from edge_protocol.errors import StoreError
from roadcast.output import emit, progress, table
from roadcast.ssh_options import KNOWN_HOSTS, AskPassword, Identity, KnownHosts, PasswordFile

if TYPE_CHECKING:
    from rich.console import RenderableType

    from devices.latency.result import Result, Summary

PYTHON = "/opt/roadcast/venv/bin/python"


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
    ssh: Annotated[str | None, typer.Option(help="On a target: a name of the site, or [USER@]HOST[:PORT].")] = None,
    site: Annotated[Path | None, typer.Option("--site", "-s", help="The site's YAML, whose ssh says where.")] = None,
    python: Annotated[str, typer.Option(help="The target's Python that has roadcast.")] = PYTHON,
    known_hosts: KnownHosts = KNOWN_HOSTS,
    identity: Identity = None,
    password_file: PasswordFile = None,
    ask_password: AskPassword = False,
) -> None:
    """Measure a model on this machine, or on a target that has Roadcast; the model need not be there."""
    from devices.latency.load import Plan
    from roadcast.bench.job import Job

    plan = Plan(
        scenario=scenario, queries=queries, seconds=seconds, warm_up_seconds=warm_up, samples=samples, rate_hz=rate
    )
    job = Job(plan=plan, threads=threads, end_to_end=end_to_end, runner=runner)
    progress(f"measuring {model} for {warm_up + seconds:g} s or more")
    if ssh is None:
        from roadcast.bench.running import run_job

        result = run_job(model, job)
    else:
        from roadcast.bench.remote import run_on
        from roadcast.ssh_fleet import login_of, site_at, target_at

        login = login_of(known_hosts, identity, password_file, ask=ask_password)
        result = run_on(target_at(ssh, site_at(site)), login, python, model, job)
    _write(result, json=json, plot=plot, loadgen=loadgen, trtexec=trtexec)
    emit(result, as_json=False, render=_shown)


def _write(result: Result, *, json: Path | None, plot: Path | None, loadgen: Path | None, trtexec: Path | None) -> None:
    from devices.latency.result import write_result
    from devices.latency.traces import write_loadgen, write_trtexec
    from roadcast.bench import report

    if json:
        write_result(json, result)
    write_text(plot, lambda: report.plot(result))
    write_text(loadgen, lambda: write_loadgen(result.raw.starts, result.raw.latencies, result.samples))
    write_text(trtexec, lambda: write_trtexec(result.raw.starts, result.raw.latencies))


def write_text(path: Path | None, text: Callable[[], str]) -> None:
    """Write a text where one is asked for.

    Raises:
        StoreError: the disk refuses.
    """
    if path is None:
        return
    try:
        path.write_text(text(), encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}; give another file") from error


def _shown(result: Result) -> RenderableType:
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
    drawn = percentiles("milliseconds", {"latency": result.latency, **result.stages, "CPU": result.cpu})
    return "\n".join([*lines, drawn]) if isinstance(drawn, str) else Group(*lines, drawn)


def percentiles(title: str, summaries: dict[str, Summary]) -> RenderableType:
    """Lay summaries out, with the bounds of the first."""
    first = next(iter(summaries.values()))
    names = [f"p{one.percentile:g}" for one in first.percentiles]
    rows: list[tuple[str | None, ...]] = []
    for name, summary in summaries.items():
        rows.append((name, f"{summary.mean_ms:.4g}", *(f"{one.ms:.4g}" for one in summary.percentiles)))
    bounds = [one.bound_ms for one in first.percentiles]
    rows.append(("latency is at most", None, *(None if bound is None else f"{bound:.4g}" for bound in bounds)))
    return table(title, ("what", "mean", *names), rows)


def _or_none(value: float | None, unit: str) -> str:
    return "not measured" if value is None else f"{value:.4g} {unit}"
