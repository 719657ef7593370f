"""The power mode by its name: the script, run here with a stand-in for nvpmodel that behaves as boards do."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from devices.provision.power_mode import POWER_SCRIPT
from tests.fakes.target import tools_path

CONFIG = """# < POWER_MODEL ID=9 NAME=MAXN >
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
  < POWER_MODEL NAME=MAXN_SUPER ID=2 >
< POWER_MODEL ID=3 NAME=7W >
< PM_CONFIG DEFAULT=1 >
"""
"""A firmware's file with the numbers of an Orin Nano; a comment first, and one mode with its words swapped."""
ASKS = "read -r answer || exit 255"
QUERY = """case $1 in
-q) echo "NVPM VERB: Config file: /etc/nvpmodel.conf"; echo "NV Power Mode: $(cat {state})"; echo 0 ;;
-m) {asks}; case $2 in 0) echo 15W;; 2) echo MAXN_SUPER;; 3) echo 7W;; esac >{state}; echo "set $2" >>{log} ;;
esac"""


def _run(
    tmp_path: Path, mode: str, *, asks: str = ":", now: str = "15W"
) -> tuple[subprocess.CompletedProcess[str], str]:
    (tmp_path / "state").write_text(f"{now}\n")
    (tmp_path / "conf").write_text(CONFIG)
    fake = QUERY.format(state=tmp_path / "state", log=tmp_path / "log", asks=asks)
    path = tools_path(tmp_path / "bin", nvpmodel=fake)
    for tool in ("sed", "grep"):
        (tmp_path / "bin" / tool).symlink_to(Path("/usr/bin") / tool)
    command = ["/bin/sh", "-c", POWER_SCRIPT, "power-mode.sh", mode, str(tmp_path / "conf")]
    done = subprocess.run(command, env={"PATH": path}, capture_output=True, text=True, check=False, timeout=30)
    return done, (tmp_path / "log").read_text() if (tmp_path / "log").exists() else ""


@pytest.mark.parametrize(("mode", "number"), [("7W", "3"), ("MAXN_SUPER", "2")])
def test_a_mode_is_set_by_its_number_on_this_board(mode: str, number: str, tmp_path: Path) -> None:
    """Whatever the order of the words in the firmware's file."""
    done, log = _run(tmp_path, mode)
    assert done.returncode == 0, done.stderr
    assert log == f"set {number}\n"


def test_a_mode_that_is_set_is_left(tmp_path: Path) -> None:
    """Nothing is told to nvpmodel."""
    done, log = _run(tmp_path, "15W")
    assert (done.returncode, log) == (0, "")


@pytest.mark.parametrize("mode", ["MAXN", "5W", "MAXN_SUPE", ".*"])
def test_a_mode_that_the_firmware_lacks_is_named_with_those_it_has(mode: str, tmp_path: Path) -> None:
    """Nor one in a comment, the beginning of another, or a pattern."""
    done, log = _run(tmp_path, mode)
    assert (done.returncode, log) == (1, "")
    assert "there are: 15W MAXN_SUPER 7W" in done.stderr


def test_a_mode_that_takes_a_reboot_reboots_nothing(tmp_path: Path) -> None:
    """Where nvpmodel asks, nobody answers; the log says what to run."""
    done, log = _run(tmp_path, "7W", asks=ASKS)
    assert (done.returncode, log) == (1, "")
    assert "sudo nvpmodel -m 3" in done.stderr


def test_another_board_says_what_to_leave_out(tmp_path: Path) -> None:
    """No nvpmodel: not a Jetson."""
    path = tools_path(tmp_path / "bin")
    command = ["/bin/sh", "-c", POWER_SCRIPT, "power-mode.sh", "7W"]
    done = subprocess.run(command, env={"PATH": path}, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert "leave power_mode out" in done.stderr
