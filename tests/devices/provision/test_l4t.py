"""NVIDIA's tree and this machine: each known trap is found, and the command is the one of its release."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from devices.boards.machine import Machine
from devices.provision.l4t import L4t, check_host, check_tree, command, folder_of
from edge_protocol.errors import ConfigError
from tests.fakes.l4t import ELF, X86_64, l4t_host, l4t_programs, l4t_tree

BOARD = "jetson-orin-nano-devkit"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the tree's sudo belongs to root")


@needs_root
def test_a_tree_and_a_host_that_are_ready_say_so(tmp_path: Path) -> None:
    """One board in recovery mode, and nothing to mend."""
    root = l4t_tree(tmp_path / "l4t")
    assert folder_of(root) == tmp_path / "l4t"
    assert list(check_tree(root, "aarch64")) == []
    l4t = L4t(tmp_path / "l4t", l4t_host(tmp_path / "host"), l4t_programs(tmp_path / "bin"))
    (finding,) = check_host(l4t, BOARD, "nvme0n1p1")
    assert (finding.check, finding.level) == ("recovery", "ok")


def _relink(root: Path) -> None:
    (root / "usr/bin/python3").unlink()
    (root / "usr/bin/python3").symlink_to("python3.8")


@needs_root
@pytest.mark.parametrize(
    ("spoil", "check", "level"),
    [
        (lambda root: (root / "etc/nv_tegra_release").unlink(), "packages", "fail"),
        (lambda root: (root / "usr/bin/sudo").chmod(0o755), "owners", "fail"),
        (lambda root: os.chown(root / "usr/bin/sudo", 1000, 1000), "owners", "fail"),
        (lambda root: (root / "usr/bin/bash").write_bytes(ELF + X86_64), "processor", "fail"),
        (_relink, "python", "fail"),
        (lambda root: (root / "usr/lib/python3.10/ensurepip/__init__.py").unlink(), "python", "warn"),
        (lambda root: (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n"), "user", "warn"),
    ],
)
def test_what_is_wrong_with_a_tree_is_found(
    spoil: Callable[[Path], object], check: str, level: str, tmp_path: Path
) -> None:
    """No packages of NVIDIA's, lost owners, another processor, an old Python, no venv, no user."""
    root = l4t_tree(tmp_path / "l4t")
    spoil(root)
    (finding,) = check_tree(root, "aarch64")
    assert (finding.check, finding.level) == (check, level)


@pytest.mark.parametrize(
    ("spoil", "check", "level"),
    [
        (lambda host, _: (host / "proc/version").write_text("Linux 5.15 microsoft-standard-WSL2"), "host", "warn"),
        (lambda _, folder: (folder.parent / "bin/sshpass").unlink(), "tools", "fail"),
        (lambda host, _: (host / "sys/module/usbcore/parameters/autosuspend").write_text("2"), "usb", "warn"),
        (
            lambda _, folder: (folder / "p3767.conf.common").write_text('RCM_UEFIBL="uefi_jetson_minimal.bin"'),
            "uefi",
            "warn",
        ),
        (lambda _, folder: (folder / f"{BOARD}.conf").unlink(), "board", "fail"),
    ],
)
def test_what_is_wrong_with_the_host_is_found(
    spoil: Callable[[Path, Path], object], check: str, level: str, tmp_path: Path
) -> None:
    """WSL, missing packages, USB that sleeps, the small UEFI, a board that the tree does not know."""
    l4t_tree(tmp_path / "l4t")
    l4t = L4t(tmp_path / "l4t", l4t_host(tmp_path / "host"), l4t_programs(tmp_path / "bin"))
    spoil(tmp_path / "host", tmp_path / "l4t")
    found = {finding.check: finding.level for finding in check_host(l4t, BOARD, "nvme0n1p1")}
    assert found == {"recovery": "ok", check: level}


def test_udisks_is_found_by_asking_systemd(tmp_path: Path) -> None:
    """It would mount the board's disks while they are written."""
    l4t_tree(tmp_path / "l4t")
    l4t_host(tmp_path / "host")
    host = Machine(tmp_path / "host", lambda argv: "active\n" if argv[-1] == "udisks2.service" else None)
    found = check_host(L4t(tmp_path / "l4t", host, l4t_programs(tmp_path / "bin")), BOARD, "internal")
    assert {finding.check for finding in found} == {"recovery", "automount"}


@pytest.mark.parametrize(
    ("boards", "says"), [((), "no boards"), (("7523", "7023"), "2 boards"), (("7020",), "no boards")]
)
def test_exactly_one_board_must_wait(boards: tuple[str, ...], says: str, tmp_path: Path) -> None:
    """None, two, or one that has booted and shows its own USB network."""
    l4t_tree(tmp_path / "l4t")
    l4t = L4t(tmp_path / "l4t", l4t_host(tmp_path / "host", boards=boards), l4t_programs(tmp_path / "bin"))
    (finding,) = check_host(l4t, BOARD, "internal")
    assert finding.level == "fail"
    assert says in finding.says


@pytest.mark.parametrize("release", ["generic", "t186ref"])
def test_the_command_is_that_of_the_release(release: str, tmp_path: Path) -> None:
    """Files of JetPack 6 and 5 lie in different places; the board's own storage takes flash.sh."""
    l4t_tree(tmp_path / "l4t", release=release)
    argv = command(tmp_path / "l4t", BOARD, "nvme0n1p1")
    assert argv[0] == "./tools/kernel_flash/l4t_initrd_flash.sh"
    assert f"-c bootloader/{release}/cfg/flash_t234_qspi.xml" in argv
    assert argv[-2:] == (BOARD, "internal")
    assert command(tmp_path / "l4t", BOARD, "internal") == ("./flash.sh", BOARD, "internal")


@pytest.mark.parametrize(
    ("board", "disk"), [("-x", "internal"), ("a b", "internal"), (BOARD, "sda"), (BOARD, "sda1"), ("", "")]
)
def test_other_names_and_unknown_layouts_are_refused(board: str, disk: str, tmp_path: Path) -> None:
    """Options in place of names, a whole disk, a disk that this release has no layout for."""
    l4t_tree(tmp_path / "l4t")
    with pytest.raises(ConfigError, match="--then-flash"):
        command(tmp_path / "l4t", board, disk)
