"""Traffic speeds from the cell-transmission model (Daganzo 1994), the discrete kinematic-wave model of a road.

Owns demand over the day and week, bottlenecks, incidents, and what detectors make of it: noise, and outages as NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from devices.packs import SeriesPack

F4 = npt.NDArray[np.float32]
F8 = npt.NDArray[np.float64]

STEP_S = 15.0
INTERVAL_S = 300.0
DAY_S = 86_400.0
START_S = 1_772_409_600.0
"""Monday 2 March 2026, 00:00 UTC."""
_MPH = 3600.0


@dataclass(frozen=True)
class Roads:
    """Several roads of equal cells; all arrays are (R, C), lengths in miles, rates per hour and carriageway.

    Attributes:
        free_mph: speed of an empty road.
        wave_mph: speed at which a queue's end moves back.
        capacity: vehicles an hour.
        jam: vehicles a mile when nothing moves.
    """

    free_mph: F8
    wave_mph: F8
    capacity: F8
    jam: F8

    @property
    def cell_miles(self) -> float:
        """Length of a cell: what the fastest vehicle covers in a step (Courant-Friedrichs-Lewy)."""
        return float(self.free_mph.max()) * STEP_S / _MPH

    def step(self, density: F8, inflow: F8, factor: F8) -> tuple[F8, F8]:
        """One time step.

        Args:
            density: (R, C) vehicles a mile.
            inflow: (R,) vehicles an hour that want to enter.
            factor: (R, C) share of the capacity that incidents leave.

        Returns:
            (R, C) density after it, and the flow out of each cell in vehicles an hour.
        """
        capacity = self.capacity * factor
        sending = np.minimum(self.free_mph * density, capacity)
        receiving = np.minimum(capacity, self.wave_mph * (self.jam - density))
        out = sending.copy()
        out[:, :-1] = np.minimum(sending[:, :-1], receiving[:, 1:])
        entering = np.concatenate([np.minimum(inflow, receiving[:, 0])[:, None], out[:, :-1]], axis=1)
        return density + (entering - out) * (STEP_S / _MPH) / self.cell_miles, out


def simulate_speeds(*, seed: int = 0, days: int = 7, roads: int = 4, cells: int = 24, detectors: int = 7) -> SeriesPack:
    """Speeds of detectors on several roads in mph, every 5 minutes, from a Monday on.

    Args:
        seed: the same seed gives the same week.
        days: how many.
        roads: carriageways that do not meet.
        cells: of each road, about 0.27 miles each.
        detectors: on each road, evenly spaced.
    """
    rng = np.random.default_rng(seed)
    network = _network(rng, roads, cells)
    at = np.linspace(1, cells - 2, detectors).astype(int)
    speeds = _run(network, rng, days)[:, :, at].reshape(-1, roads * detectors)
    noisy = speeds + rng.normal(0, 1.2, speeds.shape)
    noisy[_outages(rng, noisy.shape)] = np.nan
    miles = np.abs(at[:, None] - at[None]) * network.cell_miles
    same_road = np.kron(np.eye(roads), np.ones((detectors, detectors))) > 0
    return SeriesPack(
        values=np.clip(noisy, 1, None).astype(np.float32),
        time_s=START_S + INTERVAL_S * np.arange(len(noisy), dtype=np.float64),
        interval_s=INTERVAL_S,
        sensors=tuple(f"road{r + 1}-{int(c):02}" for r in range(roads) for c in at),
        unit="mph",
        distance=np.where(same_road, np.tile(miles, (roads, roads)), np.inf).astype(np.float32),
    )


def _network(rng: np.random.Generator, roads: int, cells: int) -> Roads:
    """Roads with different speeds and lanes, each with a bottleneck about two thirds along."""
    lanes = rng.integers(2, 5, (roads, 1))
    capacity = np.broadcast_to(1900.0 * lanes, (roads, cells)).copy()
    for road, at in enumerate(rng.integers(cells // 2, cells - 3, roads)):
        capacity[road, at : at + 2] *= rng.uniform(0.66, 0.8)
    free = np.broadcast_to(rng.uniform(55, 68, (roads, 1)), (roads, cells))
    return Roads(free, np.full((roads, cells), 12.0), capacity, np.broadcast_to(190.0 * lanes, (roads, cells)))


def _run(network: Roads, rng: np.random.Generator, days: int) -> F8:
    """(T, R, C) mean speed per interval in mph: total flow over total density (Edie 1963)."""
    shape = network.capacity.shape
    each = int(INTERVAL_S / STEP_S)
    count = int(days * DAY_S / INTERVAL_S)
    demand = _demand(rng, shape[0], count)
    closed = _incidents(rng, count, shape)
    density = 0.05 * network.jam
    speeds = np.empty((count, *shape))
    for interval in range(count):
        flow, mass = np.zeros(shape), np.zeros(shape)
        surge = rng.normal(1, 0.05, (each, shape[0]))
        for step in range(each):
            inflow = network.capacity[:, 0] * demand[interval] * surge[step]
            mass += density
            density, out = network.step(density, inflow, closed[interval])
            flow += out
        speeds[interval] = np.minimum(flow / np.maximum(mass, 1e-6), network.free_mph)
    return speeds


def _demand(rng: np.random.Generator, roads: int, count: int) -> F8:
    """(T, R) demand as a share of the capacity: two weekday peaks of their own height and hour, one weekend hump."""
    time_s = INTERVAL_S * np.arange(count)
    hour, weekend = (time_s % DAY_S / 3600)[:, None], (time_s // DAY_S % 7 >= 5)[:, None]  # noqa: PLR2004
    day = (time_s // DAY_S).astype(int)
    daily = rng.normal(1, 0.06, (int(day.max()) + 1, 2, roads))
    height = (rng.uniform(0.62, 0.82, (2, roads)) * daily)[day]
    peaks = [
        height[:, which] * np.exp(-(((hour - rng.normal(middle, 0.4, roads)) / rng.uniform(1.2, 1.8, roads)) ** 2))
        for which, middle in enumerate((7.8, 17.2))
    ]
    base = 0.06 + 0.3 * np.exp(-(((hour - 13.5) / 5.5) ** 2))
    return base + np.where(weekend, 0.15 * np.exp(-(((hour - 14) / 3.5) ** 2)), peaks[0] + peaks[1])


def _incidents(rng: np.random.Generator, count: int, shape: tuple[int, ...]) -> F8:
    """(T, R, C) share of the capacity that is left; on average one incident a road and two days."""
    left = np.ones((count, *shape))
    days = count * INTERVAL_S / DAY_S
    for road in range(shape[0]):
        for _ in range(rng.poisson(days / 2)):
            start, lasts = int(rng.integers(count)), int(rng.integers(4, 16))
            left[start : start + lasts, road, int(rng.integers(2, shape[1] - 1))] = rng.uniform(0.25, 0.6)
    return left


def _outages(rng: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """(T, S) where a detector is silent: single readings, and now and then hours."""
    silent = rng.random(shape) < 0.004  # noqa: PLR2004
    for sensor in range(shape[1]):
        for start in rng.integers(0, shape[0], rng.poisson(1.5)):
            silent[start : start + rng.integers(6, 72), sensor] = True
    return silent
