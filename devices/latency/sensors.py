"""What the board says beside the clock: energy (RAPL), clocks, throttling, heat, peak memory; from sysfs and proc.

Owns no judgement. A board without a sensor says None, which is written down as "not measured", never as zero.
Reads: Documentation/power/powercap, admin-guide/thermal, cpu-freq and filesystems/proc of the Linux kernel.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from devices.boards import Machine
from devices.boards.thermal import hottest, read_zones

PEAK_RESET = "5"
"""Written to ``clear_refs``, it makes the kernel forget the peak of resident memory."""


class Reading(msgspec.Struct, frozen=True):
    """What the sensors said at one time.

    Attributes:
        energy_uj: microjoules and the value at which the counter starts again, per RAPL package.
        clock_khz: per core that says so.
        throttled: how often cores and packages were slowed by heat since boot; None without such a counter.
        celsius: the hottest thermal zone.
    """

    energy_uj: dict[str, tuple[int, int]]
    clock_khz: tuple[int, ...]
    throttled: int | None
    celsius: float | None


class Sensed(msgspec.Struct, frozen=True):
    """What two readings say about the time between them; None: not measured.

    Attributes:
        energy_j: joules of all CPU packages, whatever ran on them.
        clock_mhz: mean of the cores before and after.
        clock_moved: relative difference of the two.
        pinned: whether the governor keeps the clock where it is.
        throttle_events: how often the CPU was slowed by heat.
        celsius: hottest zone before and after.
    """

    energy_j: float | None
    clock_mhz: tuple[float, float] | None
    clock_moved: float | None
    pinned: bool | None
    throttle_events: int | None
    celsius: tuple[float, float] | None


class Sensors:
    """The sensors of this board; `root` is where ``sys`` and ``proc`` are."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._power = root / "sys/class/powercap"
        self._cores = root / "sys/devices/system/cpu"
        self._machine = Machine(root)
        self._process = root / "proc/self"

    def read(self) -> Reading:
        """Read what there is."""
        energy = {}
        for package in sorted(self._power.glob("intel-rapl:?")):  # its parts, intel-rapl:0:0 and so on, are in it
            used, limit = _number(package / "energy_uj"), _number(package / "max_energy_range_uj")
            if used is not None and limit:
                energy[package.name] = (used, limit)
        clocks = [_number(path) for path in sorted(self._cores.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))]
        counts = [_number(path) for path in self._cores.glob("cpu[0-9]*/thermal_throttle/*_throttle_count")]
        known = [count for count in counts if count is not None]
        return Reading(
            energy,
            tuple(clock for clock in clocks if clock is not None),
            sum(known) if known else None,
            hottest(read_zones(self._machine)),
        )

    def pinned(self) -> bool | None:
        """Whether every core's governor keeps one clock, or its range is a single one."""
        found = []
        for folder in sorted(self._cores.glob("cpu[0-9]*/cpufreq")):
            low, high = _number(folder / "scaling_min_freq"), _number(folder / "scaling_max_freq")
            fixed = _text(folder / "scaling_governor") == "performance"
            found.append(fixed or (low is not None and low == high))
        return all(found) if found else None

    def forget_peak(self) -> bool:
        """Begin to measure the peak of resident memory anew; False where the kernel does not allow it."""
        try:
            (self._process / "clear_refs").write_text(PEAK_RESET, encoding="ascii")
        except OSError:
            return False
        return True

    def peak_mb(self) -> float | None:
        """Peak of resident memory of this process in MB (10^6 bytes)."""
        return self._memory("VmHWM:")

    def resident_mb(self) -> float | None:
        """Resident memory of this process now, in MB."""
        return self._memory("VmRSS:")

    def _memory(self, key: str) -> float | None:
        lines = _text(self._process / "status").splitlines()
        return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(key)), None)


def between(before: Reading, after: Reading, *, pinned: bool | None) -> Sensed:
    """Say what happened between two readings; an energy counter that started again meanwhile is understood."""
    both = before.energy_uj.keys() & after.energy_uj.keys()
    used = [(after.energy_uj[name][0] - before.energy_uj[name][0]) % after.energy_uj[name][1] for name in both]
    clocks = None
    if before.clock_khz and after.clock_khz:
        first, last = (sum(r.clock_khz) / len(r.clock_khz) / 1000 for r in (before, after))
        clocks = (first, last)
    slowed = None
    if before.throttled is not None and after.throttled is not None:
        slowed = after.throttled - before.throttled
    heat = None
    if before.celsius is not None and after.celsius is not None:
        heat = (before.celsius, after.celsius)
    return Sensed(
        energy_j=sum(used) / 1e6 if used else None,
        clock_mhz=clocks,
        clock_moved=abs(clocks[1] / clocks[0] - 1) if clocks else None,
        pinned=pinned,
        throttle_events=slowed,
        celsius=heat,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.removeprefix("-").isdigit() else None
