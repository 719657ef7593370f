"""``roadcast doctor``: is this board ready to serve? One line a check, with a fix to copy."""

from __future__ import annotations

import os
import platform
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_protocol.errors import ConfigError, ExitCode, RoadcastError
from roadcast.output import JsonFlag, emit, progress, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from devices.findings import Finding
    from edge_client.config import DeviceConfig

app = typer.Typer()


@app.command()
def doctor(
    *,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="YAML of the device, to check all of it.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder of a recorded board: checks only what its probe says.")
    ] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Do what is safe: make folders, close secrets, set the clock.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Check board, software, clock, disks, and with a configuration sources and broker; exit 4 when not ready."""
    from devices.findings import worst
    from roadcast.agent import load_device

    if root is not None and (config is not None or fix):
        raise ConfigError("--root looks at a recorded board alone: leave out --config and --fix")
    wanted = None if config is None else load_device(config)
    found = examine(wanted, root)
    if fix:
        mended = [finding for finding in found if finding.safe and _mend(finding)]
        found = examine(wanted, root) if mended else found
    emit(found, json, _lines)
    if worst(found) == "fail":
        raise typer.Exit(ExitCode.NOT_READY)


def examine(config: DeviceConfig | None, root: Path | None) -> tuple[Finding, ...]:
    """Make every check that can be made.

    Args:
        config: of the device; without it neither sources nor broker are tried.
        root: a recorded board; nothing of this machine is then tried.
    """
    from devices.boards import board_of, probe
    from devices.doctor.board_checks import check_board, check_python
    from devices.doctor.runtime_checks import check_runtimes, check_tensorrt, try_providers
    from devices.doctor.source_checks import check_cameras
    from edge_client.trust_store import CLOCK_FLOOR_S
    from roadcast.commands.devices import machine_at

    facts = probe(machine_at(root))
    profile = board_of(facts.model, facts.parts, facts.machine)
    python = platform.python_version() if root is None else facts.python
    tls = config is not None and config.broker.ca_file is not None
    found = [*check_board(facts, CLOCK_FLOOR_S, time.time(), tls=tls), check_python(python, facts.glibc)]
    found.append(check_cameras(facts.cameras))
    if root is None:
        progress("trying ONNX Runtime's providers")
        gpu = profile is not None and profile.compute_capability is not None
        found += check_runtimes(try_providers(), gpu=gpu, others=check_tensorrt())
        found += _configured(config) if config is not None else ()
    return tuple(found)


def _configured(config: DeviceConfig) -> list[Finding]:
    from devices.doctor.link_checks import check_broker, check_certificates
    from devices.doctor.source_checks import check_source, check_state_dir
    from edge_client.cameras import scene_file

    state_dir = Path(config.state_dir)
    agent, side = _agent(config)
    found = [agent, check_state_dir(state_dir, config.replay.budget_bytes)]
    for source in config.sources:
        progress(f"waiting for a frame of {source.name}")
        found += check_source(source.name, source.uri, scene_file(state_dir, source.name), side=side)
    progress(f"connecting to {config.broker.host}")
    found += check_certificates(config.broker, time.time(), config.device)
    return [*found, check_broker(config.broker, config.fleet_id, config.device_id)]


def _agent(config: DeviceConfig) -> tuple[Finding, tuple[str, ...]]:
    """Whether the agent would start with its configuration, and its task's own inputs."""
    from devices.findings import Finding
    from edge_client.configured import check_configuration

    try:
        spec = check_configuration(config)
    except RoadcastError as error:
        fix = "put there what is missing; `roadcast client check` says whether the agent would start"
        return Finding("configuration", "fail", str(error), fix), ()
    return Finding("configuration", "ok", f"{spec.name} with {spec.students[config.tier]}"), spec.side


def _mend(finding: Finding) -> bool:
    """Carry out a safe fix; as root no sudo is needed, and as a user none is asked for."""
    from devices.boards.machine import run_command

    argv = shlex.split(finding.fix)
    if argv[0] == "sudo":
        argv = argv[1:] if os.geteuid() == 0 else ["sudo", "-n", *argv[1:]]
    progress(f"running: {shlex.join(argv)}")
    return run_command(tuple(argv)) is not None


def _lines(found: tuple[Finding, ...]) -> RenderableType:
    rows = [(finding.level, finding.check, finding.says, finding.fix or None) for finding in found]
    counts = {level: sum(finding.level == level for finding in found) for level in ("ok", "warn", "fail")}
    title = ", ".join(f"{count} {level}" for level, count in counts.items())
    return table(title, ("", "check", "found", "fix"), rows)
