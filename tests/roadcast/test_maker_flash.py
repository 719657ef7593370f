"""NVIDIA's tool is run with what it needs, after everything else, and not at all when it would fail."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from devices.boards.machine import Machine
from devices.provision.plan import Plan, PlannedFile
from devices.provision.programs import Programs
from edge_protocol.errors import ConfigError, NotReadyError
from roadcast.maker_flash import Handed, flash_board, warn_of_tree
from tests.fakes.l4t import l4t_host, l4t_programs, l4t_tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: NVIDIA's tools do")
PLAN = Plan((PlannedFile("/etc/roadcast/device.yaml", b"device: cam-1\n", 0o640),), ())
WHERE = "jetson-orin-nano-devkit:nvme0n1p1"


@pytest.fixture
def machine(tmp_path: Path) -> tuple[Machine, Programs]:
    """A host that is ready."""
    return l4t_host(tmp_path / "host"), l4t_programs(tmp_path / "bin")


def _flash(root: Path, machine: tuple[Machine, Programs], where: str = WHERE, *, dry_run: bool = False) -> Handed:
    host, programs = machine
    return flash_board(PLAN, root, where, "aarch64", yes=True, dry_run=dry_run, host=host, programs=programs)


def test_the_tree_is_written_and_then_the_board(tmp_path: Path, machine: tuple[Machine, Programs]) -> None:
    """NVIDIA's tool is called in its folder, once, with the board and its disk."""
    root = l4t_tree(tmp_path / "l4t")
    handed = _flash(root, machine)
    assert handed.done
    assert (root / "etc/roadcast/device.yaml").read_bytes() == b"device: cam-1\n"
    called = (tmp_path / "l4t/called").read_text().splitlines()
    assert called[:4] == [
        str(tmp_path / "l4t"),
        "./tools/kernel_flash/l4t_initrd_flash.sh",
        "--external-device",
        "nvme0n1p1",
    ]
    assert called[-2:] == ["jetson-orin-nano-devkit", "internal"]


def test_a_dry_run_calls_nothing(tmp_path: Path, machine: tuple[Machine, Programs]) -> None:
    """It says what it would run, and what it found."""
    handed = _flash(l4t_tree(tmp_path / "l4t"), machine, dry_run=True)
    assert not handed.done
    assert handed.command.startswith("./tools/kernel_flash/l4t_initrd_flash.sh")
    assert not (tmp_path / "l4t/called").exists()
    assert not (tmp_path / "l4t/rootfs/etc/roadcast").exists()


def test_what_would_fail_is_not_begun(tmp_path: Path) -> None:
    """No board, no packages: all that is missing in one message, with how to mend it."""
    machine = l4t_host(tmp_path / "host", boards=()), l4t_programs(tmp_path / "bin", "abootimg")
    with pytest.raises(NotReadyError, match=r"abootimg \(sudo \./tools/l4t_flash_prerequisites\.sh\); no boards"):
        _flash(l4t_tree(tmp_path / "l4t"), machine)
    assert not (tmp_path / "l4t/called").exists()


def test_a_tool_that_fails_is_told_with_its_command(tmp_path: Path, machine: tuple[Machine, Programs]) -> None:
    """Its exit status, and what to run again by hand."""
    with pytest.raises(NotReadyError, match=r"left with 7.*l4t_initrd_flash\.sh"):
        _flash(l4t_tree(tmp_path / "l4t", status=7), machine)


def test_another_tree_is_not_nvidia_s(tmp_path: Path, machine: tuple[Machine, Programs]) -> None:
    """No flash.sh beside it."""
    (tmp_path / "rootfs/etc").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"no flash\.sh"):
        _flash(tmp_path / "rootfs", machine)


def test_a_tree_s_traps_are_told_without_flashing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever writes it with NVIDIA's tool by hand is warned as well; of other trees only what any must have."""
    root = l4t_tree(tmp_path / "l4t")
    (root / "etc/nv_tegra_release").unlink()
    warn_of_tree(root, "aarch64", "/usr/bin/python3")
    assert "apply_binaries.sh" in capsys.readouterr().err.replace("\n", "")
    (tmp_path / "l4t/flash.sh").unlink()
    warn_of_tree(root, "aarch64", "/usr/bin/python3")
    assert capsys.readouterr().err == ""
    warn_of_tree(root, "x86_64", "/usr/bin/python3")
    assert "the system is for aarch64, the site for x86_64" in " ".join(capsys.readouterr().err.split())
