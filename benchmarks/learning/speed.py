"""Traffic speed (METR-LA, one week) on 12 devices of 14 sensors along a road each: shared and personal forecasts.

The pack has no missing reading, so masked and unmasked errors agree; `muenster` shows them part.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.harness import Options, Outcome, run
from benchmarks.learning import series_report
from benchmarks.learning.kept import CACHE
from benchmarks.learning.series import SeriesTask
from devices.packs import SeriesPack
from edge_models.profiles import DAY_S, I8
from edge_models.tasks import load_task
from edge_protocol.errors import DataError
from roadcast.demo.series_shares import by_road

SENSORS = 14


def roads(pack: SeriesPack, devices: int, rng: np.random.Generator) -> list[I8]:
    """Neighbours along the roads for each device; the sensors that are left out change with the seed."""
    if pack.distance is None or len(pack.sensors) < devices * SENSORS:
        raise DataError(f"a fleet of {devices} devices needs {devices * SENSORS} sensors and their distances")
    left = np.sort(rng.permutation(len(pack.sensors))[: devices * SENSORS])
    near = pack.distance[np.ix_(left, left)].astype(np.float64)
    return [left[road] for road in by_road(np.where(np.isfinite(near), near, 1e9), [SENSORS] * devices, rng)]


TASK = SeriesTask(
    pack="metrla_week_speed",
    spec=load_task("speed"),
    devices=12,
    deal=roads,
    period_s=DAY_S,
    stride=1,
    least=1.0,
    fixed=False,
)


def measured(options: Options, *, cache: Path) -> Outcome:
    """Speed forecasts of a week, 12 devices."""
    return series_report.measured(options, task=TASK, cache=cache)


if __name__ == "__main__":
    raise SystemExit(run(measured, cache=CACHE))
