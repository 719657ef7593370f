"""What a training job costs the board: memory, steps, time and, where the board can say it, energy; owns no job."""

from __future__ import annotations

import resource
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np

from devices.boards import Machine
from devices.boards.power import read_rails, total

_STEPS = 4096


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
            step_ms=1e3 * float(np.median(self._seconds)) if self._seconds else None,
            cpu_s=cpu_s,
            energy_j=None if watts is None else cpu_s * watts,
        )


def board_watts(machine: Machine | None = None) -> float | None:
    """What the whole board draws now; None without a sensor that says so: a sum of some rails is no figure."""
    power = total(read_rails(machine or Machine()))
    return None if power is None or power.estimated else power.watts


def resident_mb(root: Path = Path("/")) -> float:
    """What this process holds in memory now (MB); 0 where nothing tells."""
    return _status_mb(root, "VmRSS:") or 0.0


def _peak_mb(root: Path) -> float:
    """Peak of this program; ``ru_maxrss`` may still be the parent's, whose pages the process had before it began."""
    return _status_mb(root, "VmHWM:") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _status_mb(root: Path, name: str) -> float | None:
    with suppress(OSError, ValueError, StopIteration):
        lines = (root / "proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024
    return None
