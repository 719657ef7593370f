"""Load and clock of a Jetson's GPU, from sysfs. Owns no CUDA context.

A context in a monitor costs memory, and on Thor polling one every second was seen to make the kernel complain.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from devices.boards.machine import Machine

_DEVICE: Final = re.compile(r"/(?:[0-9a-f]+\.(?:gpu|gm20b|gp10b|gv11b|ga10b)|gpu-gpc-0)/cur_freq$")
_LOADS: Final = (
    "sys/devices/gpu.0/load",
    "sys/devices/platform/gpu.0/load",
    "sys/devices/platform/bus@0/*.gpu/load",
    "sys/class/devfreq/*/device/load",
)
_PERMILLE: Final = 1000
_MOST_HZ: Final = 10**11


class Gpu(msgspec.Struct, frozen=True):
    """A Jetson's GPU.

    Attributes:
        load: 0 to 1; None when the kernel does not say (Thor).
        clock_hz: None when it does not say.
        pinned: whether its range is a single clock (``jetson_clocks``); None when it does not say.
    """

    load: float | None
    clock_hz: int | None
    pinned: bool | None = None


def read_gpu(machine: Machine) -> Gpu | None:
    """The GPU; None on a board that has none of ours."""
    clocks = [path for path in machine.find("sys/class/devfreq/*/cur_freq") if _DEVICE.search(path)]
    loads = [path for pattern in _LOADS for path in machine.find(pattern)]
    if not clocks and not loads:
        return None
    permille = _first(machine, loads, _PERMILLE)
    low, high = (
        _first(machine, [path.replace("cur_freq", name) for path in clocks], _MOST_HZ)
        for name in ("min_freq", "max_freq")
    )
    pinned = None if low is None or high is None else low == high
    return Gpu(None if permille is None else permille / _PERMILLE, _first(machine, clocks, _MOST_HZ), pinned)


def _first(machine: Machine, paths: list[str], most: int) -> int | None:
    return next((value for value in map(machine.whole, paths) if value is not None and 0 <= value <= most), None)
