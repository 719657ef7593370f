"""Wheels installed by the unit's own line, with the real venv and pip and no network: whatever fails, the old stays."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from devices.provision.plan import make_plan
from devices.provision.site import InstallConfig
from tests.fakes.wheels import wheel

pytestmark = [pytest.mark.timeout(600), pytest.mark.skipif(sys.platform != "linux", reason="GNU coreutils")]


class _Board:
    """A prefix on this machine that plans are written below."""

    def __init__(self, folder: Path) -> None:
        self.prefix, self.link = folder / "opt", folder / "opt/venv"
        self.line: list[str] = []

    def flash(self, wheels: Path, *, broken: bool = False) -> None:
        """Write set-up script and wheels, the last of them with a byte changed when broken, and read the unit."""
        install = InstallConfig(
            prefix=str(self.prefix), python=sys.executable, wheels="wheels", system_packages=False, machine="x86_64"
        )
        content = {path.name: path.read_bytes() for path in wheels.iterdir()}
        files = make_plan({"fleet": "city", "device": "cam-1"}, install, {}, content).files
        for file in files:
            if file.path.startswith(str(self.prefix)):
                Path(file.path).parent.mkdir(parents=True, exist_ok=True)
                rots = broken and file.path.endswith(".whl")
                Path(file.path).write_bytes(file.content[:-1] + b"?" if rots else file.content)
        (unit,) = (file.content.decode() for file in files if file.path.endswith("roadcast-setup.service"))
        (line,) = (line.partition("=")[2] for line in unit.splitlines() if line.startswith("ExecStart="))
        self.line = shlex.split(line)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command without this checkout, which would bring the real Roadcast."""
        bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(command, env=bare, capture_output=True, text=True, check=False, timeout=200)

    def version(self) -> str:
        """What the agent's program says that it is."""
        return self.run(str(self.link / "bin/roadcast")).stdout.strip()

    def environments(self) -> int:
        """How many lie on the card."""
        return len(list(self.prefix.glob("venv-*")))


def test_an_environment_is_swapped_when_it_is_whole_and_not_before(tmp_path: Path) -> None:
    """Over one from before there were links; a rotten wheel and one that is missing leave it; then the old one goes."""
    board, old, new = _Board(tmp_path), tmp_path / "old", tmp_path / "new"
    wheel(old, "roadcast", "0.1.0", needs=["alpha"])
    wheel(old, "alpha")
    for place in (board.link / "bin", board.prefix / "venv-mine"):
        place.mkdir(parents=True)
        (place / "pyvenv.cfg").touch()
    (board.link / "pyvenv.cfg").touch()
    board.flash(old)
    done = board.run(*board.line)
    assert (done.returncode, board.version()) == (0, "0.1.0"), done.stderr
    assert (board.link / f"ready-{board.line[3]}").exists()
    assert board.link.is_symlink()
    compiled = {path.name.partition(".")[0] for path in board.link.resolve().rglob("__pycache__/*.pyc")}
    assert {"roadcast", "alpha"} <= compiled, "the agent may write no bytecode there"

    wheel(new, "roadcast", "0.2.0", needs=["alpha"])
    board.flash(new)
    done = board.run(*board.line)
    assert (done.returncode != 0, board.version()) == (True, "0.1.0")
    assert "alpha" in done.stderr
    wheel(new, "alpha")
    board.flash(new, broken=True)
    done = board.run(*board.line)
    assert (done.returncode != 0, board.version()) == (True, "0.1.0")
    assert "DO NOT MATCH" in done.stderr
    assert board.environments() == 2, "the one in use and somebody's own: nothing half built is left"

    board.flash(old)
    back = board.line
    board.flash(new)
    assert board.run(*board.line).returncode == 0
    assert (board.version(), board.environments()) == ("0.2.0", 3)
    assert (board.run(*back[:5], "nowhere").returncode, board.version()) == (0, "0.1.0"), (
        "the one before is still whole"
    )
    assert (board.run(*board.line).returncode, board.version()) == (0, "0.2.0")
    assert board.run(*board.line[:3]).returncode == 0
    assert (board.version(), board.environments()) == ("0.2.0", 2)
    assert (board.prefix / "venv-mine/pyvenv.cfg").exists()


def test_an_environment_whose_mark_is_gone_is_made_anew(tmp_path: Path) -> None:
    """Whatever was half built after a power cut goes first."""
    board, wheels = _Board(tmp_path), tmp_path / "wheels"
    wheel(wheels, "roadcast", "0.1.0")
    half = board.prefix / "venv-0123456789abcdef"
    half.mkdir(parents=True)
    (half / "pyvenv.cfg").touch()
    board.flash(wheels)
    broken = Path(f"{board.link}-{board.line[3]}")
    (broken / "bin").mkdir(parents=True)
    board.link.symlink_to(broken)
    assert board.run(*board.line).returncode == 0
    assert (board.version(), board.environments()) == ("0.1.0", 1)
