"""Energy of a run: the board's supply rails sampled on the side, or its processor's counter (RAPL); owns no run.

Rails are found by label (`devices.boards.power`). The whole board's rail is preferred; without one the rails are added
up, which is said to be an estimate; without any, RAPL counts CPU packages only. A board that has neither is "not
measured". Jetsons' INA3221 average over milliseconds and are read over I2C, so rails are sampled ten times a second and
integrated, which says nothing of a single inference.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import pairwise

import msgspec

from devices.boards import Machine
from devices.boards.power import read_rails, total
from devices.latency.sensors import Sensors, between

RATE_HZ = 10.0


class Energy(msgspec.Struct, frozen=True):
    """What was drawn over a time.

    Attributes:
        source: ``board``, ``rails`` (a sum, which leaves parts of the board out) or ``rapl`` (CPU packages).
        joules: over the whole time.
        seconds: that time.
        samples: readings that it is made of.
    """

    source: str
    joules: float
    seconds: float
    samples: int

    @property
    def watts(self) -> float:
        """Mean power."""
        return self.joules / self.seconds


class Draw(msgspec.Struct, frozen=True):
    """What a run drew, and what the board drew before it with the model loaded and nothing asked of it.

    Attributes:
        source: as of `Energy`.
        watts, idle_watts: means.
        mj_per_sample: millijoules per sample, with what the board draws anyway.
        mj_per_sample_above_idle: without it.
    """

    source: str
    watts: float
    idle_watts: float
    mj_per_sample: float
    mj_per_sample_above_idle: float


def integrated(readings: Sequence[tuple[int, float]]) -> float:
    """Joules under readings of (nanoseconds, watts) in order, by trapezoids."""
    pairs = pairwise(readings)
    return sum((b[0] - a[0]) / 1e9 * (a[1] + b[1]) / 2 for a, b in pairs)


def draw_of(idle: Energy, busy: Energy, samples: int) -> Draw | None:
    """Set a run beside the idle time before it; None when they were measured in different ways."""
    if idle.source != busy.source or not samples:
        return None
    above = (busy.watts - idle.watts) * busy.seconds
    return Draw(busy.source, busy.watts, idle.watts, busy.joules * 1e3 / samples, above * 1e3 / samples)


class PowerMeter:
    """Measures what the board draws while something runs.

    Args:
        machine: the board.
        sensors: of the same board, for RAPL.
        wall: nanoseconds.
    """

    def __init__(self, machine: Machine, sensors: Sensors, wall: Callable[[], int]) -> None:
        self._machine, self._sensors, self._wall = machine, sensors, wall

    def watts(self) -> tuple[str, float] | None:
        """Source and power now, from the rails; None without any that can be read."""
        power = total(read_rails(self._machine))
        if power is None or power.watts is None:
            return None
        return "rails" if power.estimated else "board", power.watts

    def over(self, work: Callable[[], object]) -> Energy | None:
        """Do the work and say what was drawn meanwhile; None: not measured. What the work raises is raised."""
        source = self.watts()
        return self._counted(work) if source is None else self._sampled(source[0], work)

    def _counted(self, work: Callable[[], object]) -> Energy | None:
        begun, before = self._wall(), self._sensors.read()
        work()
        joules = between(before, self._sensors.read(), pinned=None).energy_j
        seconds = (self._wall() - begun) / 1e9
        return None if joules is None or not seconds else Energy("rapl", joules, seconds, 2)

    def _sampled(self, source: str, work: Callable[[], object]) -> Energy | None:
        readings: list[tuple[int, float]] = []
        done = threading.Event()

        def sample() -> None:
            found = self.watts()
            if found is not None and found[0] == source:  # one that failed once leaves a gap, which is bridged
                readings.append((self._wall(), found[1]))

        def keep_sampling() -> None:
            while not done.wait(1 / RATE_HZ):
                sample()

        sample()
        sampler = threading.Thread(target=keep_sampling, name="power", daemon=True)
        sampler.start()
        try:
            work()
        finally:
            done.set()
            sampler.join()
        sample()
        seconds = (readings[-1][0] - readings[0][0]) / 1e9 if readings else 0.0
        return Energy(source, integrated(readings), seconds, len(readings)) if seconds else None
