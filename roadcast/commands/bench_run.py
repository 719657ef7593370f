"""``roadcast bench run``: measure a model here or on a target over SSH, show it, and write it as asked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from devices.latency.load import Scenario
from edge_protocol.errors import CheckFailedError, ConfigError, StoreError
from roadcast.bench.job import Driver, Job, PublishTo, RunnerName
from roadcast.given_options import flags, given
from roadcast.output import emit, progress
from roadcast.ssh_options import KNOWN_HOSTS, AskPassword, Identity, KnownHosts, PasswordFile

if TYPE_CHECKING:
    from devices.latency.result import Result
    from devices.latency.soak import Soak, Window

_SECONDS, _DEVICE_SECONDS = 10.0, 5.0
_WAIT_S = 90.0
"""For a device's answer beyond its seconds: it gives up by itself after 60."""
_ONLY_DEVICE = frozenset({"device", "state_dir", "task"})
_OF_DEVICE = _ONLY_DEVICE | {"seconds", "json"}
_ONLY_SSH = frozenset({"site", "python", "known_hosts", "identity", "password_file", "ask_password"})
PYTHON = "/opt/roadcast/venv/bin/python"


def run(
    context: typer.Context,
    model: Annotated[Path | None, typer.Argument(help="Folder of 'export build', or an ONNX file.")] = None,
    *,
    runner: Annotated[
        RunnerName, typer.Option(help="ONNX Runtime: CPU, CUDA, TensorRT; TensorRT itself; PyTorch.")
    ] = "ort",
    scenario: Annotated[Scenario, typer.Option(help="How queries are issued, as in MLPerf.")] = "single-stream",
    seconds: Annotated[float | None, typer.Option(help="Measured at least; 10, a device 5.", min=0)] = None,
    queries: Annotated[int, typer.Option(help="Measured at least.", min=1)] = 1024,
    warm_up: Annotated[float, typer.Option(help="Seconds before that.", min=0)] = 2.0,
    samples: Annotated[int | None, typer.Option(help="In a query; as the scenario has it without.", min=1)] = None,
    rate: Annotated[float, typer.Option(help="Queries per second of the scenario server.", min=0)] = 0.0,
    threads: Annotated[int, typer.Option(help="That one inference may use.", min=1)] = 1,
    end_to_end: Annotated[bool, typer.Option(help="From a camera's JPEG to a message that is handed over.")] = False,
    source: Annotated[str, typer.Option(metavar="URI", help="The same from a camera, clip or folder of images.")] = "",
    publish: Annotated[PublishTo | None, typer.Option(help="Whom messages go to; memory without.")] = None,
    driver: Annotated[Driver, typer.Option(help="Who issues queries: our loop, or MLPerf's own LoadGen.")] = "roadcast",
    loadgen_logs: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep that LoadGen's own files.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="OUT", help="Write the result with every query.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="OUT.svg", help="Draw the distribution.")] = None,
    loadgen: Annotated[Path | None, typer.Option(metavar="OUT", help="Write a trace as MLPerf LoadGen does.")] = None,
    trtexec: Annotated[Path | None, typer.Option(metavar="OUT", help="Write times as trtexec does.")] = None,
    soak: Annotated[str, typer.Option(help="Keep it busy that long and watch the board, such as 30m.")] = "",
    power: Annotated[bool, typer.Option("--power", help="Measure what the board draws.")] = False,
    ssh: Annotated[str | None, typer.Option(help="On a target: a name of the site, or [USER@]HOST[:PORT].")] = None,
    site: Annotated[Path | None, typer.Option("--site", "-s", help="The site's YAML, whose ssh says where.")] = None,
    python: Annotated[str, typer.Option(help="The target's Python that has roadcast.")] = PYTHON,
    known_hosts: KnownHosts = KNOWN_HOSTS,
    identity: Identity = None,
    password_file: PasswordFile = None,
    ask_password: AskPassword = False,
    device: Annotated[str | None, typer.Option(help="What a device serves, asked for through the server.")] = None,
    state_dir: Annotated[Path | None, typer.Option(help="With --device: the server's state folder.")] = None,
    task: Annotated[str | None, typer.Option(help="With --device: which of its tasks.")] = None,
) -> None:
    """Measure a model here, or on a target over SSH that has Roadcast; or have a device measure what it serves."""
    _check_given(context, to_device=device is not None)
    for path in (json, plot, loadgen, trtexec):
        check_writable(path)
    if device is not None:
        _ask_device(device, state_dir, task, seconds, json)
        return
    if model is None:
        raise ConfigError("bench run: name a model, or a device with --device")
    from broker_server.rollout_plan import SECONDS, parse_quantity
    from devices.latency.load import Plan

    seconds = _SECONDS if seconds is None else seconds
    plan = Plan(
        scenario=scenario, queries=queries, seconds=seconds, warm_up_seconds=warm_up, samples=samples, rate_hz=rate
    )
    soak_s = parse_quantity(soak, SECONDS, "duration") if soak else 0.0
    job = Job(
        plan=plan,
        threads=threads,
        end_to_end=end_to_end or bool(source) or publish is not None,
        source=source,
        publish=publish or "memory",
        runner=runner,
        driver=driver,
        soak_s=soak_s,
        power=power,
    )
    if loadgen_logs is not None and (driver != "loadgen" or ssh is not None):
        raise ConfigError("--loadgen-logs keeps the files of --driver loadgen on this machine; it goes with no --ssh")
    progress(f"measuring {model} for {warm_up + (soak_s or seconds):g} s or more")
    where = None if ssh is None else Where(ssh, site, python, known_hosts, identity, password_file, ask_password)
    result = _measured_here(model, job, loadgen_logs) if where is None else _measured_on(where, model, job)
    _told(result, Files(json, plot, loadgen, trtexec))


def _ask_device(
    device: str, state_dir: Path | None, task: str | None, seconds: float | None, json: Path | None
) -> None:
    import msgspec

    from roadcast.bench.fleet import measure_device
    from roadcast.bench.show import told

    if state_dir is None:
        raise ConfigError("--device: name the server's state folder with --state-dir")
    found = measure_device(state_dir, device, task, _DEVICE_SECONDS if seconds is None else seconds, _WAIT_S)
    emit(found, as_json=False, render=told)
    write_text(json, lambda: msgspec.json.format(msgspec.json.encode(found)).decode() + "\n")


class Where(NamedTuple):
    """A target and how to get in, as it was asked for."""

    ssh: str
    site: Path | None
    python: str
    known_hosts: Path
    identity: Path | None
    password_file: Path | None
    ask_password: bool


class Files(NamedTuple):
    """What is to be written."""

    json: Path | None
    plot: Path | None
    loadgen: Path | None
    trtexec: Path | None


def _measured_here(model: Path, job: Job, logs: Path | None) -> Result | Soak:
    from roadcast.bench.running import run_job

    def told(window: Window) -> None:
        heat = "" if window.celsius is None else f", {window.celsius:.0f} °C"
        progress(f"{window.at_s:.0f} s: p50 {window.p50_ms:.3g} ms, p99 {window.p99_ms:.3g} ms{heat}")

    return run_job(model, job, told=told, logs=logs)


def _measured_on(where: Where, model: Path, job: Job) -> Result | Soak:
    from roadcast.bench.remote import run_on
    from roadcast.ssh_fleet import login_of, site_at, target_at

    login = login_of(where.known_hosts, where.identity, where.password_file, ask=where.ask_password)
    return run_on(target_at(where.ssh, site_at(where.site)), login, where.python, model, job)


def _told(result: Result | Soak, files: Files) -> None:
    from devices.latency.result import Result, write_result
    from devices.latency.traces import write_loadgen, write_trtexec
    from roadcast.bench import charts, show

    if isinstance(result, Result):
        emit(result, as_json=False, render=show.result)
    else:
        emit(result, as_json=False, render=show.soak)
    if files.json:
        write_result(files.json, result)
    if not isinstance(result, Result):
        write_text(files.plot, lambda: charts.plot_soak(result))
        if result.findings:
            raise CheckFailedError("; ".join(result.findings))
        return
    raw = result.raw
    write_text(files.plot, lambda: charts.plot(result))
    write_text(files.loadgen, lambda: write_loadgen(raw.starts, raw.latencies, result.samples))
    write_text(files.trtexec, lambda: write_trtexec(raw.starts, raw.latencies))


def _check_given(context: typer.Context, *, to_device: bool) -> None:
    """Refuse what would be passed over without a word."""
    names = given(context)
    if to_device and (lost := [name for name in names if name not in _OF_DEVICE]):
        raise ConfigError(f"--device measures what the device serves, as it serves it: leave out {flags(lost)}")
    if not to_device and (lost := [name for name in names if name in _ONLY_DEVICE]):
        raise ConfigError(f"{flags(lost)}: only with --device; name one, or leave that out")
    if "ssh" not in names and (lost := [name for name in names if name in _ONLY_SSH]):
        raise ConfigError(f"{flags(lost)}: only with --ssh; name a target, or leave that out")


def check_writable(path: Path | None) -> None:
    """Refuse a file that cannot be written, before what goes into it takes its time; makes none.

    Raises:
        StoreError: its folder is missing or closed to us, or it is a folder, or a file that is.
    """
    if path is None:
        return
    if not path.parent.is_dir():
        raise StoreError(f"{path}: there is no folder {path.parent}; make it, or give another file")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise StoreError(f"{path}: cannot be written; give another file")


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
