"""Processor, memory, Python and clock of any Linux machine. Owns no judgement of them."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from devices.boards.machine import Machine, whole

_MEMORY: Final = re.compile(r"^(MemTotal|MemAvailable|SwapTotal|SwapFree):\s+([0-9]{1,15}) kB$", re.MULTILINE)
_CPU: Final = re.compile(r"^(?:model name|Model)\s*:\s*(\S.*)$", re.MULTILINE)
_USER_TO_IOWAIT: Final = re.compile(r"^cpu +([0-9 ]{7,400})$", re.MULTILINE)
_INACTIVE: Final = re.compile(r"^inactive_file ([0-9]{1,18})$", re.MULTILINE)
_RANGE: Final = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")
_VERSION: Final = re.compile(r"\d+\.\d+(?:\.\d+)?")


class Memory(msgspec.Struct, frozen=True):
    """Memory in bytes; None for what the kernel does not say."""

    total: int | None = None
    available: int | None = None
    swap_total: int | None = None
    swap_free: int | None = None


class Clock(msgspec.Struct, frozen=True):
    """The board's clock.

    Attributes:
        synchronised: whether the kernel says that something keeps it right; None when it cannot be asked.
        hardware: name of the battery-backed clock; None without one: time then starts anywhere after power is back.
    """

    synchronised: bool | None
    hardware: str | None


def read_model(machine: Machine) -> str | None:
    """Name of the board: from the device tree, else (x86) vendor and product."""
    model = machine.text("proc/device-tree/model")
    if model is not None:
        return " ".join(model.split())
    parts = [machine.text(f"sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name")]
    return " ".join(part for part in parts if part) or None


def read_processor(machine: Machine) -> str | None:
    """What the processor calls itself; None on most ARM boards."""
    found = _CPU.search(machine.lines("proc/cpuinfo", _CPU))
    return None if found is None else found[1].strip()


def read_cores(machine: Machine) -> int | None:
    """Processor cores that are on."""
    text = machine.text("sys/devices/system/cpu/online") or ""
    ranges = [_RANGE.fullmatch(part) for part in text.split(",")]
    spans = [(int(found[1]), int(found[2] or found[1])) for found in ranges if found]
    cores = sum(last - first + 1 for first, last in spans if last >= first)
    return cores if len(spans) == len(ranges) and cores > 0 else None


def read_memory(machine: Machine) -> Memory:
    """What ``/proc/meminfo`` says."""
    said = {name: int(kib) << 10 for name, kib in _MEMORY.findall(machine.text("proc/meminfo") or "")}
    return Memory(said.get("MemTotal"), said.get("MemAvailable"), said.get("SwapTotal"), said.get("SwapFree"))


def read_room(machine: Machine) -> int | None:
    """Bytes below the memory limit of this process's control group (systemd's MemoryMax); None without a limit.

    Pages of files that can be dropped count as free. Control groups of version 1 and 2; limits further up are not read.
    """
    for line in (machine.text("proc/self/cgroup") or "").splitlines():
        _, kinds, path = [*line.split(":", 2), "", ""][:3]
        folder, limit, used = "sys/fs/cgroup", "memory.max", "memory.current"
        if "memory" in kinds.split(","):
            folder, limit, used = "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        elif kinds:
            continue
        most, now = machine.whole(f"{folder}{path}/{limit}"), machine.whole(f"{folder}{path}/{used}")
        if most is not None and now is not None:
            cache = _INACTIVE.search(machine.text(f"{folder}{path}/memory.stat") or "")
            return max(most - now + (int(cache[1]) if cache else 0), 0)
    return None


def read_ticks(machine: Machine) -> tuple[int, int] | None:
    """Ticks that the processor was busy and idle since the start, over all cores; for a share take differences."""
    found = _USER_TO_IOWAIT.search(machine.text("proc/stat") or "")
    ticks = [] if found is None else [whole(part) for part in found[1].split()]
    known = [tick for tick in ticks if tick is not None]
    if len(known) < 5 or len(known) != len(ticks):  # noqa: PLR2004  # user nice system idle iowait
        return None
    idle = known[3] + known[4]
    return sum(known[:8]) - idle, idle


def read_clock(machine: Machine) -> Clock:
    """Whether the clock is kept right."""
    said = {"yes": True, "no": False}.get(machine.run("timedatectl", "show", "-p", "NTPSynchronized", "--value") or "")
    return Clock(said, machine.text("sys/class/rtc/rtc0/name"))


def read_version(machine: Machine, *argv: str) -> str | None:
    """The version number in what a program prints."""
    found = _VERSION.search(machine.run(*argv) or "")
    return None if found is None else found[0]
