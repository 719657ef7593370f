"""What the service on a device starts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import typer.main
import yaml

from edge_protocol.errors import ExitCode
from edge_protocol.files import alone
from roadcast import agent
from roadcast.commands.client import app
from tests.edge_client.device_rig import device_config

LIMIT_S = 100


def _started(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "roadcast.agent", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def test_it_takes_the_options_of_client_run() -> None:
    """Every option of `roadcast client run` is known here under the same names, and no other."""
    (run,) = (each for each in typer.main.get_group(app).commands.items() if each[0] == "run")
    theirs = {name for parameter in run[1].params for name in parameter.opts} - {"--help"}
    ours = {name for action in agent.parser()._actions for name in action.option_strings}
    assert ours - {"-h", "--help"} == theirs


def test_it_serves_until_sigterm_and_says_what_was_counted(tmp_path: Path) -> None:
    """The service manager hears that it is ready; it ends with exit code 0 and a line of counts."""
    (tmp_path / "device.yaml").write_text(yaml.safe_dump(msgspec.to_builtins(device_config(tmp_path))))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(LIMIT_S)
        with _started("-c", str(tmp_path / "device.yaml"), NOTIFY_SOCKET=str(tmp_path / "notify")) as process:
            assert manager.recv(100) == b"READY=1"
            process.terminate()
            said, complained = process.communicate(timeout=LIMIT_S)
    assert process.returncode == ExitCode.OK, complained
    assert said.startswith("device cam-1  release 0  frames ")


def test_a_second_agent_on_a_state_folder_says_what_is_in_its_way(tmp_path: Path) -> None:
    """It ends with exit code 4 and one line, and the one that runs is left in peace."""
    config = device_config(tmp_path)
    (tmp_path / "device.yaml").write_text(yaml.safe_dump(msgspec.to_builtins(config)))
    with alone(Path(config.state_dir), "agent"), _started("-c", str(tmp_path / "device.yaml")) as process:
        _, complained = process.communicate(timeout=LIMIT_S)
    assert process.returncode == ExitCode.NOT_READY
    assert (
        " ".join(complained.split()) == f"error: {config.state_dir}: another agent runs on this folder; stop it first"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--config", "none.yaml"), ExitCode.CONFIG, "error: none.yaml: cannot be read"),
        ((), ExitCode.USAGE, "--config"),
    ],
)
def test_what_the_unit_must_not_try_again_has_its_exit_code(arguments: tuple[str, ...], code: int, told: str) -> None:
    """A wrong configuration ends with 78 and a wrong command line with 2: `RestartPreventExitStatus` names both."""
    with _started(*arguments) as process:
        _, complained = process.communicate(timeout=LIMIT_S)
    assert process.returncode == code
    assert told in complained
