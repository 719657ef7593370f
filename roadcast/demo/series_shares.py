"""Deals the sensors of a road network out: to devices by road, to the server at random, and by time. Pure; no file.

The first part of the time is history (every device's own), the next is what the judge measures on and what devices
see live, and the last part is held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from devices.packs import SeriesPack
from edge_protocol.errors import DataError

I8 = npt.NDArray[np.int64]
F8 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SeriesSizes:
    """How much of the series everybody gets.

    Attributes:
        anchors, proxies, validation: sensors of the server, each for one purpose.
        device: sensors of each device.
        test: further sensors that nobody has, for the held-out windows.
        anchor_rows, proxy_rows: of the labelled windows that the first release learns from, and of those to answer.
        history, live: parts of the time; the rest is held out.
    """

    anchors: int = 6
    proxies: int = 6
    validation: int = 6
    device: int = 12
    test: int = 40
    anchor_rows: int = 432
    proxy_rows: int = 288
    history: float = 0.7
    live: float = 0.1


@dataclass(frozen=True)
class SensorShare:
    """One device's sensors: their history, what they read live, and what is held out."""

    history: SeriesPack
    live: SeriesPack
    test: SeriesPack


@dataclass(frozen=True)
class SeriesShares:
    """Everybody's series; no sensor is in two of them, and nothing held out is seen by anybody.

    Attributes:
        anchors, validation: the server's labelled windows.
        proxies: the server's windows that devices answer.
        test: later windows of sensors that neither the server nor a device has.
        past: history of the same sensors, for their level and spread.
        devices: by device name.
    """

    anchors: SeriesPack
    validation: SeriesPack
    proxies: SeriesPack
    test: SeriesPack
    past: SeriesPack
    devices: dict[str, SensorShare]


def share_series(pack: SeriesPack, names: Sequence[str], sizes: SeriesSizes, rng: np.random.Generator) -> SeriesShares:
    """Deal the sensors out.

    Raises:
        DataError: too few sensors or rows for everybody.
    """
    kinds = [sizes.anchors, sizes.proxies, sizes.validation, sizes.test, *[sizes.device] * len(names)]
    past, end = int(len(pack) * sizes.history), int(len(pack) * (sizes.history + sizes.live))
    if len(pack.sensors) < sum(kinds) or past < max(sizes.anchor_rows, sizes.proxy_rows):
        raise DataError(
            f"the demo needs {sum(kinds)} sensors and {max(sizes.anchor_rows, sizes.proxy_rows)} rows of history, "
            f"this pack has {len(pack.sensors)} and {past}"
        )
    mixed = rng.permutation(len(pack.sensors))
    own, rest = mixed[: sum(kinds[:4])], np.sort(mixed[sum(kinds[:4]) :])
    roads = [rest[road] for road in by_road(_distances(pack)[np.ix_(rest, rest)], kinds[4:], rng)]
    server = pack.columns(own)
    edges = np.cumsum([0, *kinds[:4]])
    anchors, proxies, validation, test = (server.columns(np.arange(a, b)) for a, b in pairwise(edges))
    return SeriesShares(
        anchors=anchors.rows(slice(0, sizes.anchor_rows)),
        proxies=_busiest(proxies.rows(slice(0, past)), sizes.proxy_rows),
        validation=validation.rows(slice(past, end)),
        test=test.rows(slice(end, None)),
        past=test.rows(slice(0, past)),
        devices={
            name: SensorShare(*(mine.rows(rows) for rows in (slice(0, past), slice(past, end), slice(end, None))))
            for name, mine in ((name, pack.columns(road)) for name, road in zip(names, roads, strict=True))
        },
    )


def by_road(distance: F8, sizes: Sequence[int], rng: np.random.Generator) -> list[I8]:
    """Groups of neighbours: each grows from a sensor far from the others by the nearest free sensor.

    Args:
        distance: (S, S), inf where there is no way; only its order matters.
        sizes: sensors of each group.
        rng: draws the first sensor.
    """
    near = np.minimum(distance, distance.T)
    free = np.ones(len(near), bool)
    groups: list[I8] = []
    start = int(rng.integers(len(near)))
    for size in sizes:
        group = [start]
        free[start] = False
        while len(group) < size:
            reach = np.where(free, near[group].min(axis=0), np.nan)
            nearest = int(np.nanargmin(reach))
            group.append(nearest)
            free[nearest] = False
        groups.append(np.array(group, np.int64))
        if free.any():
            away = near[np.concatenate(groups)].min(axis=0)
            start = int(np.argmax(np.where(free, away, -1)))
    return groups


def _distances(pack: SeriesPack) -> F8:
    """Road distances; where a pack has none, sensors count as strung along one road in their order."""
    if pack.distance is not None:
        return pack.distance.astype(np.float64)
    along = np.arange(len(pack.sensors), dtype=np.float64)
    return np.abs(along[:, None] - along[None, :])


def _busiest(pack: SeriesPack, rows: int) -> SeriesPack:
    """The `rows` consecutive rows in which readings change most: free flow all night teaches nobody."""
    change = np.nan_to_num(np.abs(np.diff(pack.values, axis=0, prepend=pack.values[:1]))).mean(axis=1)
    moved = np.convolve(change, np.ones(rows), mode="valid")
    start = int(np.argmax(moved))
    return pack.rows(slice(start, start + rows))
