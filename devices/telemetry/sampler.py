"""Takes a sample of the board every time it is asked, cheap enough for once a second. Owns no clock and no thread.

Files that change are read every time. What costs a process (is the clock kept right, how worn is an NVMe disk) is asked
once a minute, and its answer kept until the next. Sensors are looked for again then, for drivers may load after us.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from devices.boards.gpu import read_gpu
from devices.boards.host import read_clock, read_memory, read_ticks
from devices.boards.machine import Machine
from devices.boards.power import read_rails, total
from devices.boards.storage import disk_names, read_disks, written_bytes
from devices.boards.thermal import headroom, read_throttling, read_zones

SLOW_S: Final = 60.0
"""Seconds between two askings of what costs a process."""
_LONGEST_NAME: Final = 64
_MOST: Final = 256


class Sample(msgspec.Struct, frozen=True):
    """Readings of one moment.

    Attributes:
        at_s: on the monotonic clock of whoever asked.
        values: reading by name (see `devices.telemetry.metrics`); absent when it could not be taken.
    """

    at_s: float
    values: dict[str, float]


class Sampler:
    """Samples one board.

    Args:
        machine: the board.
        state_dir: a folder on the disk whose room is watched.
        keep: samples that are kept; the oldest gives way, so memory is bounded.
    """

    def __init__(self, machine: Machine, *, state_dir: Path | None = None, keep: int = 600) -> None:
        self._machine, self._state_dir = machine, state_dir
        self._slow: dict[str, float] = {}
        self._slow_at_s: float | None = None
        self._ticks: tuple[int, int] | None = None
        self.history: deque[Sample] = deque(maxlen=keep)

    def sample(self, at_s: float) -> Sample:
        """Take a sample.

        Args:
            at_s: the time on a monotonic clock, in seconds.
        """
        if self._slow_at_s is None or at_s - self._slow_at_s >= SLOW_S:
            self._machine.forget()
            self._slow, self._slow_at_s = dict(self._slow_readings()), at_s
        readings = {**dict(self._readings()), **self._slow}
        readings |= self._rates(readings, at_s)
        named = {name: value for name, value in readings.items() if len(name) <= _LONGEST_NAME}
        taken = Sample(at_s, dict(list(named.items())[:_MOST]))
        self.history.append(taken)
        return taken

    def _readings(self) -> Iterator[tuple[str, float]]:
        machine = self._machine
        zones, rails = read_zones(machine), read_rails(machine)
        yield from _known((f"temperature_celsius.{zone.name}", zone.celsius) for zone in zones)
        yield from _known([("temperature_headroom_celsius", headroom(zones))])
        yield from _known((f"power_watts.{rail.name}", rail.watts) for rail in rails)
        yield from _known((f"over_current.{rail.name}", rail.over_current) for rail in rails)
        power, gpu, memory, throttling = total(rails), read_gpu(machine), read_memory(machine), read_throttling(machine)
        if power is not None and power.watts is not None:
            yield from [("board_power_watts", power.watts), ("board_power_estimated", float(power.estimated))]
        if gpu is not None:
            yield from _known([("gpu_load_ratio", gpu.load), ("gpu_clock_hertz", gpu.clock_hz)])
        yield from _known([("memory_total_bytes", memory.total), ("memory_available_bytes", memory.available)])
        yield from _known([("throttled", throttling.active), ("throttle_events_total", throttling.events)])
        yield from _known([("cpu_load_ratio", self._load())])
        for name in disk_names(machine):
            yield from _known([(f"disk_written_bytes_total.{name}", written_bytes(machine, name))])

    def _slow_readings(self) -> Iterator[tuple[str, float]]:
        yield from _known([("clock_synchronized", read_clock(self._machine).synchronised)])
        yield from _known((f"disk_wear_ratio.{disk.name}", disk.wear) for disk in read_disks(self._machine))
        try:
            room = None if self._state_dir is None else os.statvfs(self._state_dir)
        except OSError:
            room = None
        if room is not None:
            yield "state_free_bytes", float(room.f_bavail * room.f_frsize)
            yield "state_total_bytes", float(room.f_blocks * room.f_frsize)

    def _load(self) -> float | None:
        before, self._ticks = self._ticks, read_ticks(self._machine)
        if before is None or self._ticks is None:
            return None
        busy, idle = self._ticks[0] - before[0], self._ticks[1] - before[1]
        return busy / (busy + idle) if busy >= 0 and idle >= 0 and busy + idle > 0 else None

    def _rates(self, readings: dict[str, float], at_s: float) -> dict[str, float]:
        """Bytes a second since the last sample; none after a counter began again."""
        if not self.history or at_s <= self.history[-1].at_s:
            return {}
        last, rates = self.history[-1], {}
        for name, value in readings.items():
            metric, _, disk = name.partition(".")
            before = last.values.get(name)
            if metric == "disk_written_bytes_total" and before is not None and value >= before:
                rates[f"disk_written_bytes_per_second.{disk}"] = (value - before) / (at_s - last.at_s)
        return rates


def _known(readings: Iterable[tuple[str, float | None]]) -> Iterator[tuple[str, float]]:
    for name, value in readings:
        if value is not None:
            yield name, float(value)
