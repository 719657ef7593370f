"""What a training job costs the board: memory, steps, time and, where the board can say it, energy; owns no job."""

from __future__ import annotations

import resource
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median

import msgspec

_STEPS = 4096
_MAINS = frozenset({"VDD_IN", "POM_5V_IN", "VDD_5V_IN", "VIN_SYS_5V0"})
"""Names that Jetson boards give the rail that feeds all others, as their INA3221 sensor is labelled."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What one job has cost.

    Attributes:
        peak_mb: most memory that was resident, in MiB.
        steps: of fitting, over every head that was tried.
        step_ms: median of one; None when there were too few to tell.
        cpu_s: processor seconds from the start of the process on.
        energy_j: estimate: processor seconds times what the board draws; None where the board does not tell its watts.
    """

    peak_mb: float
    steps: int
    step_ms: float | None
    cpu_s: float
    energy_j: float | None

    def values(self) -> dict[str, float]:
        """By name, as a device's state carries them; what was not measured is absent."""
        named = {f"train_{name}": value for name, value in msgspec.structs.asdict(self).items()}
        return {name: float(value) for name, value in named.items() if value is not None}


class Meter:
    """Counts the steps of a job and what they take; `tick` is called after each.

    Args:
        clock: seconds of any clock that never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._last, self.steps = clock, clock(), 0
        self._seconds: deque[float] = deque(maxlen=_STEPS)

    def tick(self) -> None:
        """One step is done; what came before the first is no step."""
        now = self._clock()
        if self.steps:
            self._seconds.append(now - self._last)
        self._last, self.steps = now, self.steps + 1

    def cost(self, watts: float | None, cpu_s: float, root: Path = Path("/")) -> Cost:
        """What this process has cost after `cpu_s` on a board that draws `watts`; `root` is where ``proc`` is."""
        return Cost(
            peak_mb=_peak_mb(root),
            steps=self.steps,
            step_ms=1e3 * median(self._seconds) if self._seconds else None,
            cpu_s=cpu_s,
            energy_j=None if watts is None else cpu_s * watts,
        )


def board_watts(root: Path = Path("/")) -> float | None:
    """What the board draws now, from the sensor on its main rail; None without one.

    Args:
        root: where ``sys`` is; hwmon gives mV and mA (INA3221).
    """
    for label in sorted((root / "sys/class/hwmon").glob("hwmon*/in*_label")):
        with suppress(OSError, ValueError):
            if label.read_text(encoding="ascii").strip() in _MAINS:
                number = label.name.removeprefix("in").removesuffix("_label")
                millivolts, milliamps = (
                    int((label.parent / f"{kind}{number}_input").read_text(encoding="ascii")) for kind in ("in", "curr")
                )
                return millivolts * milliamps / 1e6
    return None


def _peak_mb(root: Path) -> float:
    """Peak of this program; ``ru_maxrss`` may still be the parent's, whose pages the process had before it began."""
    with suppress(OSError, ValueError, StopIteration):
        lines = (root / "proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
