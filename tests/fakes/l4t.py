"""A ``Linux_for_Tegra`` of empty files with NVIDIA's names, a tool that notes how it was called, and a host."""

from __future__ import annotations

import os
from pathlib import Path

from devices.boards.machine import Machine
from devices.provision.programs import Programs

ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00"
AARCH64, X86_64 = (183).to_bytes(2, "little"), (62).to_bytes(2, "little")
TOOLS = ("xmllint", "simg2img", "abootimg", "sshpass", "exportfs")


def l4t_tree(folder: Path, *, release: str = "generic", status: int = 0) -> Path:
    """Make one that is ready; returns its root filesystem tree."""
    for name in ("etc", "usr/bin", "usr/lib/python3.10/ensurepip"):
        (folder / "rootfs" / name).mkdir(parents=True)
    root = folder / "rootfs"
    (root / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.7\n")
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nnvidia:x:1000:1000::/home/nvidia:/bin/sh\n")
    (root / "usr/bin/sudo").write_bytes(b"")
    (root / "usr/bin/sudo").chmod(0o4755)
    (root / "usr/bin/bash").write_bytes(ELF + AARCH64)
    (root / "usr/bin/python3").symlink_to("python3.10")
    (root / "usr/lib/python3.10/ensurepip/__init__.py").touch()
    (folder / "jetson-orin-nano-devkit.conf").touch()
    for tool in ("flash.sh", "tools/kernel_flash/l4t_initrd_flash.sh"):
        (folder / tool).parent.mkdir(parents=True, exist_ok=True)
        (folder / tool).write_text(f'#!/bin/sh\npwd >called\nprintf "%s\\n" "$0" "$@" >>called\nexit {status}\n')
        (folder / tool).chmod(0o755)
    (folder / "tools/kernel_flash/flash_l4t_t234_nvme.xml").touch()
    (folder / f"bootloader/{release}/cfg").mkdir(parents=True)
    (folder / f"bootloader/{release}/cfg/flash_t234_qspi.xml").touch()
    return root


def l4t_host(folder: Path, *, boards: tuple[str, ...] = ("7523",), autosuspend: str = "-1") -> Machine:
    """A machine with boards of NVIDIA's on its USB, by product, and a keyboard."""
    for number, (vendor, product) in enumerate([("046d", "c31c"), *(("0955", board) for board in boards)]):
        device = folder / f"sys/bus/usb/devices/1-{number}"
        device.mkdir(parents=True)
        (device / "idVendor").write_text(f"{vendor}\n")
        (device / "idProduct").write_text(f"{product}\n")
    (folder / "sys/module/usbcore/parameters").mkdir(parents=True)
    (folder / "sys/module/usbcore/parameters/autosuspend").write_text(f"{autosuspend}\n")
    (folder / "proc").mkdir()
    (folder / "proc/version").write_text("Linux version 6.1.0\n")
    return Machine(folder, lambda _argv: None)


def l4t_programs(folder: Path, *without: str) -> Programs:
    """The packages that NVIDIA's tools need, as empty programs."""
    folder.mkdir()
    for name in TOOLS:
        if name not in without:
            (folder / name).write_text("#!/bin/sh\n")
            os.chmod(folder / name, 0o755)  # noqa: PTH101
    return Programs(str(folder))
