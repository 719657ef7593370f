"""Windows of a logger's sensors, each in its own scale; owns no source, and of the replay store only looks.

A sensor is known by its name. Those of the commissioning pack keep the scale of that history; a scale that is learned
as readings come goes on after a restart from the readings that stored windows end with.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from devices.packs import SeriesPack
from edge_client.stored import latest
from edge_models.habits import sensor_numbers
from edge_models.scales import F8, Scale
from edge_models.windows import LiveWindows
from edge_protocol.task import TaskSpec

LOG = logging.getLogger(__name__)
REMEMBERED = 600
"""Windows of each sensor, the newest, whose readings are looked at: two days of five minutes."""


def live_windows(spec: TaskSpec, sensors: Sequence[str], history: SeriesPack | None, replay: Path) -> LiveWindows:
    """Begin the windows of sensors.

    Args:
        spec: the task; its input is a series.
        sensors: S names, in the order of the logger's columns.
        history: the commissioning pack, in any order of its own; None for none.
        replay: file of the replay store; when it cannot be read, scales are learned anew.
    """
    scale = None if history is None else Scale.fit(history.values).of_sensors(history.sensors, sensors)
    new = [name for name in sensors if history is None or name not in history.sensors]
    if new and history is not None:
        LOG.warning("the commissioning pack has no sensor %s: scales are learned as readings come", ", ".join(new))
    past = past_readings(replay, spec, sensors) if new else None
    return LiveWindows(spec, len(sensors), scale, sensor_numbers(sensors), past)


def past_readings(replay: Path, spec: TaskSpec, sensors: Sequence[str]) -> F8:
    """What each of S sensors read at the end of its stored windows: (T, S) float64 in its unit, NaN where none is."""
    windows = latest(replay, spec, REMEMBERED * len(sensors))
    windows = windows.take(windows.raw[:, -1, 1].astype(bool) & bool(windows.side.shape[1]))
    mean, spread = windows.scale.T.astype(np.float64)
    values = mean + spread * windows.raw[:, -1, 0].astype(np.float64)
    of_each = [values[(windows.side == number).any(axis=1)] for number in sensor_numbers(sensors)]
    table = np.full((max(map(len, of_each), default=0), len(sensors)), np.nan)
    for column, own in enumerate(of_each):
        table[: len(own), column] = own
    return table
