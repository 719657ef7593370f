"""NVIDIA's ``Linux_for_Tegra``: what makes its flashing fail, looked for first, and the command that begins it.

Owns no flashing: ``flash.sh`` and ``l4t_initrd_flash.sh`` do that. Where each trap is from: NVIDIA's
``README_initrd_flash.txt`` (packages, udisks2, one board at a time), owners' reports of what hangs at "Waiting for
target to boot-up" (Seeed-Studio/Linux_for_Tegra 53, ARK-Electronics/ark_jetson_kernel 51, dorssel/usbipd-win 159), and,
from memory, NVIDIA's forum (``sudo tar``, autosuspend, the first user). None was met on a board here.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from devices.boards.machine import Machine
from devices.findings import Finding
from devices.provision.programs import Programs
from devices.provision.system_checks import SYSTEM_PYTHON, Folder, check_system
from edge_protocol.errors import ConfigError

_PACKAGES: Final = {
    "xmllint": "libxml2-utils",
    "simg2img": "android-sdk-libsparse-utils",
    "abootimg": "abootimg",
    "sshpass": "sshpass",
    "exportfs": "nfs-kernel-server",
}
_NVIDIA, _RUNNING = "0955", "7020"
"""USB vendor, and the product that a board which has booted shows: that one is not in recovery mode."""
_INTERNAL: Final = ("internal", "mmcblk0p1")
_FIRST_USER, _LAST_USER = 1000, 60000
_BOARD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_DISK: Final = re.compile(r"(nvme\d+n\d+p\d+|sd[a-z]\d+|mmcblk\d+p\d+|internal)")


class L4t(msgspec.Struct, frozen=True):
    """A tree of NVIDIA's, and the machine that it lies on.

    Attributes:
        folder: ``Linux_for_Tegra``.
        host: this machine, or what stands for it.
        programs: of this machine.
    """

    folder: Path
    host: Machine
    programs: Programs


def folder_of(rootfs: Path) -> Path | None:
    """The ``Linux_for_Tegra`` that a root filesystem tree belongs to; None for any other tree."""
    folder = rootfs.resolve().parent
    return folder if (folder / "flash.sh").is_file() else None


def check_tree(rootfs: Path, machine: str, python: str = SYSTEM_PYTHON) -> Iterator[Finding]:
    """What of a root filesystem tree would make a board that does not start, or does not run the agent."""
    if not (rootfs / "etc/nv_tegra_release").exists():
        says = "NVIDIA's packages are not in the tree: a board does not boot from it"
        yield Finding("packages", "fail", says, "sudo ./apply_binaries.sh")
    sudo = _status(rootfs / "usr/bin/sudo")
    if sudo is not None and (sudo.st_uid != 0 or not sudo.st_mode & stat.S_ISUID):
        says = "the tree's owners are lost: unpacked without sudo, or onto a filesystem that keeps none"
        yield Finding("owners", "fail", says, "unpack it anew: sudo tar xpf …_sample-root-filesystem_*.tbz2 -C rootfs")
    yield from check_system(Folder(rootfs), machine, python)
    if not any(_is_user(line) for line in _lines(rootfs / "etc/passwd")):
        says = "no user: at its first boot the board waits for somebody at a screen"
        yield Finding(
            "user", "warn", says, "sudo ./tools/l4t_create_default_user.sh -u NAME -p PASSWORD --accept-license"
        )


def check_host(l4t: L4t, board: str, disk: str) -> Iterator[Finding]:
    """What of this machine makes NVIDIA's tools fail or hang."""
    kernel = l4t.host.text("proc/version") or ""
    if "microsoft" in kernel.lower():
        says = "WSL: the board goes off and on the USB bus while it is flashed, and must be attached again each time"
        yield Finding("host", "warn", says, "usbipd attach --wsl --auto-attach, or a real Linux")
    missing = [package for tool, package in _PACKAGES.items() if not l4t.programs.has(tool)]
    if missing:
        fix = "sudo ./tools/l4t_flash_prerequisites.sh"
        yield Finding("tools", "fail", f"NVIDIA's tools need {', '.join(missing)}", fix)
    if l4t.host.run("systemctl", "is-active", "udisks2.service") == "active":
        says = "udisks2 mounts the board's disks while they are written"
        yield Finding("automount", "warn", says, "sudo systemctl stop udisks2.service")
    suspend = l4t.host.whole("sys/module/usbcore/parameters/autosuspend")
    if suspend is not None and suspend >= 0:
        fix = "echo -1 | sudo tee /sys/module/usbcore/parameters/autosuspend"
        yield Finding("usb", "warn", "USB devices are put to sleep, boards in recovery mode as well", fix)
    yield from _check_recovery(l4t.host)
    common = l4t.folder / "p3767.conf.common"
    if disk not in _INTERNAL and any("uefi_jetson_minimal" in line for line in _lines(common)):
        says = "L4T 36.4.3 and later start some Orin NX with a small UEFI that hangs at 'Waiting for target to boot-up'"
        yield Finding("uefi", "warn", says, "if it hangs: clear RCM_UEFIBL and RCM_TBCFILE in p3767.conf.common")
    if not (l4t.folder / f"{board}.conf").exists():
        known = ", ".join(sorted(path.stem for path in l4t.folder.glob("*.conf"))) or "none"
        yield Finding("board", "fail", f"there is no {board}.conf in {l4t.folder}; there are: {known}", "")


def _check_recovery(host: Machine) -> Iterator[Finding]:
    boards = []
    for path in host.find("sys/bus/usb/devices/*/idVendor"):
        product = host.text(path.replace("idVendor", "idProduct"))
        if host.text(path) == _NVIDIA and product not in {None, _RUNNING}:
            boards.append(product)
    if len(boards) == 1:
        yield Finding("recovery", "ok", f"one board in recovery mode ({_NVIDIA}:{boards[0]})")
    else:
        says = f"{len(boards) or 'no'} boards in recovery mode on USB; there must be one"
        yield Finding(
            "recovery", "fail", says, "hold REC (or bridge FC REC and GND) while it gets power; lsusb -d 0955:"
        )


def command(folder: Path, board: str, disk: str) -> tuple[str, ...]:
    """What is run in ``Linux_for_Tegra`` to flash a board.

    Args:
        folder: ``Linux_for_Tegra``.
        board: the name of its ``.conf``.
        disk: ``internal``, or the partition of the board that gets the tree: ``nvme0n1p1``, ``sda1``.

    Raises:
        ConfigError: names that are none, or a release that has no layout for such a disk.
    """
    if not _BOARD.fullmatch(board) or not _DISK.fullmatch(disk):
        raise ConfigError(f"--then-flash: {board}:{disk} is not BOARD:DISK, such as jetson-orin-nano-devkit:nvme0n1p1")
    if disk in _INTERNAL:
        return ("./flash.sh", board, disk)
    kind = "nvme" if disk.startswith("nvme") else "external"
    layouts = [f"tools/kernel_flash/flash_l4t_t234_{kind}.xml", "tools/kernel_flash/flash_l4t_external.xml"]
    firmware = [f"bootloader/{place}/cfg/flash_t234_qspi.xml" for place in ("generic", "t186ref")]
    layout, qspi = (next((name for name in names if (folder / name).is_file()), None) for names in (layouts, firmware))
    if layout is None or qspi is None:
        raise ConfigError(
            f"--then-flash: {folder} has no layout for {disk} that is known here; run NVIDIA's tool by hand"
        )
    return (
        *("./tools/kernel_flash/l4t_initrd_flash.sh", "--external-device", disk, "-c", layout, "-p", f"-c {qspi}"),
        *("--showlogs", "--network", "usb0", board, "internal"),
    )


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError:
        return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _is_user(line: str) -> bool:
    fields = line.split(":")
    return len(fields) > 2 and fields[2].isdecimal() and _FIRST_USER <= int(fields[2]) < _LAST_USER  # noqa: PLR2004
