"""What the board says beside the clock: energy (RAPL), clocks, power mode, throttling, heat, peak memory.

From sysfs, proc and `nvpmodel`. Owns no judgement. A board without a sensor says None, which is written down as "not
measured", never as zero. Reads: Documentation/power/powercap, admin-guide/thermal, cpu-freq and filesystems/proc of the
Linux kernel.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from devices.boards import Machine
from devices.boards.gpu import read_gpu
from devices.boards.jetson import read_power_mode
from devices.boards.thermal import hottest, read_throttling, read_zones

PEAK_RESET = "5"
"""Written to ``clear_refs``, it makes the kernel forget the peak of resident memory."""


class Reading(msgspec.Struct, frozen=True):
    """What the sensors said at one time.

    Attributes:
        energy_uj: microjoules and the value at which the counter starts again, per RAPL package.
        clock_khz: per core that says so.
        throttled: how often cores and packages were slowed by heat since boot, or else the board's own counter of heat
            and over-current; None without either.
        celsius: the hottest thermal zone.
        gpu_hz: clock of a Jetson's GPU.
        slowed_by: alerts that are on; None on a board that has no alerts.
    """

    energy_uj: dict[str, tuple[int, int]]
    clock_khz: tuple[int, ...]
    throttled: int | None
    celsius: float | None
    gpu_hz: int | None = None
    slowed_by: tuple[str, ...] | None = None


class Moment(msgspec.Struct, frozen=True):
    """The board at one time of a run; None: not measured.

    Attributes:
        at_s: since the run began.
        celsius: hottest zone.
        clock_mhz: mean of the cores.
        gpu_mhz: of a Jetson's GPU.
    """

    at_s: float
    celsius: float | None
    clock_mhz: float | None
    gpu_mhz: float | None

    @property
    def empty(self) -> bool:
        """Whether nothing was measured."""
        return self.celsius is None and self.clock_mhz is None and self.gpu_mhz is None


class Sensed(msgspec.Struct, frozen=True):
    """What two readings say about the time between them; None: not measured.

    Attributes:
        energy_j: joules of all CPU packages, whatever ran on them.
        clock_mhz: mean of the cores before and after.
        clock_moved: relative difference of the two.
        pinned: whether clocks stay where they are, the cores' and a Jetson's GPU's.
        throttle_events: how often the processor was slowed by heat, or a board also by over-current.
        celsius: hottest zone before and after.
        slowed_by: alerts that were on before or after; None on a board that has no alerts.
    """

    energy_j: float | None
    clock_mhz: tuple[float, float] | None
    clock_moved: float | None
    pinned: bool | None
    throttle_events: int | None
    celsius: tuple[float, float] | None
    slowed_by: tuple[str, ...] | None = None

    @property
    def throttled(self) -> bool | None:
        """Whether anything was slowed down; None: not measured."""
        if self.slowed_by is None and self.throttle_events is None:
            return None
        return bool(self.slowed_by) or bool(self.throttle_events)


class Sensors:
    """The sensors of this board; `root` is where ``sys`` and ``proc`` are, `machine` what else is asked there."""

    def __init__(self, root: Path = Path("/"), machine: Machine | None = None) -> None:
        self._power = root / "sys/class/powercap"
        self._cores = root / "sys/devices/system/cpu"
        self._machine = machine or Machine(root)
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
        alerts, gpu = read_throttling(self._machine), read_gpu(self._machine)
        return Reading(
            energy,
            tuple(clock for clock in clocks if clock is not None),
            sum(known) if known else alerts.events,
            hottest(read_zones(self._machine)),
            None if gpu is None else gpu.clock_hz,
            None if alerts.active is None else alerts.reasons,
        )

    def moment(self, at_s: float) -> Moment:
        """Heat and clocks now, at a time of a run."""
        found = self.read()
        gpu_mhz = None if found.gpu_hz is None else found.gpu_hz / 1e6
        return Moment(at_s, found.celsius, _mhz(found), gpu_mhz)

    def power_mode(self) -> str | None:
        """Name of a Jetson's power mode, its number where the name is unknown; None on another board."""
        mode = read_power_mode(self._machine)
        return None if mode is None else mode.name or f"mode {mode.number}"

    def pinned(self) -> bool | None:
        """Whether every core's governor keeps one clock, or its range is a single one; and a Jetson's GPU's is."""
        found = []
        for folder in sorted(self._cores.glob("cpu[0-9]*/cpufreq")):
            low, high = _number(folder / "scaling_min_freq"), _number(folder / "scaling_max_freq")
            fixed = _text(folder / "scaling_governor") == "performance"
            found.append(fixed or (low is not None and low == high))
        gpu = read_gpu(self._machine)
        if gpu is not None and gpu.pinned is not None:
            found.append(gpu.pinned)
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
    first, last = _mhz(before), _mhz(after)
    clocks = None if first is None or last is None else (first, last)
    slowed = None
    if before.throttled is not None and after.throttled is not None:
        slowed = max(after.throttled - before.throttled, 0)
    alerts = None
    if before.slowed_by is not None and after.slowed_by is not None:
        alerts = {*before.slowed_by, *after.slowed_by}
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
        slowed_by=None if alerts is None else tuple(sorted(alerts)),
    )


def _mhz(reading: Reading) -> float | None:
    clocks = reading.clock_khz
    return sum(clocks) / len(clocks) / 1000 if clocks else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.removeprefix("-").isdigit() else None
