"""All that can be found out about a board, in one structure. Owns no reading of its own: the modules beside it do."""

from __future__ import annotations

import msgspec

from devices.boards.attached import Camera, Modem, read_cameras, read_modem
from devices.boards.gpu import Gpu, read_gpu
from devices.boards.host import (
    Clock,
    Memory,
    read_clock,
    read_cores,
    read_memory,
    read_model,
    read_processor,
    read_version,
)
from devices.boards.jetson import L4t, PowerMode, parse_parts, read_l4t, read_power_mode
from devices.boards.machine import Machine
from devices.boards.power import Power, Rail, read_rails, total
from devices.boards.profiles import board_of
from devices.boards.storage import Disk, RootFilesystem, read_disks, read_root
from devices.boards.thermal import Throttling, Zone, read_throttling, read_zones


class BoardFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a board says about itself; None and empty for what it does not say.

    Attributes:
        board: name of its profile; None for a board that is not in the table.
        model: its name, as it stands in the device tree or DMI.
        parts: part numbers of module and carrier.
        machine: processor architecture, such as ``aarch64``.
        processor, cores: what the processor calls itself; cores that are on.
        memory: in bytes.
        kernel, python, glibc: versions.
        l4t: NVIDIA's release.
        power_mode, zones, throttling, rails, power, gpu, disks, root, clock, cameras, modem: see there.
    """

    board: str | None
    model: str | None
    parts: tuple[str, ...]
    machine: str | None
    processor: str | None
    cores: int | None
    memory: Memory
    kernel: str | None
    python: str | None
    glibc: str | None
    l4t: L4t | None
    power_mode: PowerMode | None
    zones: tuple[Zone, ...]
    throttling: Throttling
    rails: tuple[Rail, ...]
    power: Power | None
    gpu: Gpu | None
    disks: tuple[Disk, ...]
    root: RootFilesystem | None
    clock: Clock
    cameras: tuple[Camera, ...]
    modem: Modem | None


def probe(machine: Machine) -> BoardFacts:
    """Ask a board everything. Never raises; takes up to a few seconds where a tool hangs."""
    model, parts = read_model(machine), parse_parts(machine.text("proc/device-tree/compatible") or "")
    architecture = machine.run("uname", "-m")
    board = board_of(model, parts, architecture)
    rails = read_rails(machine)
    return BoardFacts(
        board=None if board is None else board.name,
        model=model,
        parts=parts,
        machine=architecture,
        processor=read_processor(machine),
        cores=read_cores(machine),
        memory=read_memory(machine),
        kernel=machine.text("proc/sys/kernel/osrelease"),
        python=read_version(machine, "python3", "--version"),
        glibc=read_version(machine, "getconf", "GNU_LIBC_VERSION"),
        l4t=read_l4t(machine),
        power_mode=read_power_mode(machine),
        zones=read_zones(machine),
        throttling=read_throttling(machine),
        rails=rails,
        power=total(rails),
        gpu=read_gpu(machine),
        disks=read_disks(machine),
        root=read_root(machine),
        clock=read_clock(machine),
        cameras=read_cameras(machine),
        modem=read_modem(machine),
    )
