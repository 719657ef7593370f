"""Traffic speed (METR-LA, one week) on 12 devices of 14 sensors along a road each: shared and personal forecasts.

Also ``--cache DIR`` (``build/bench-cache``): what was trained, so that a run that was stopped goes on. The pack has no
missing reading, so masked and unmasked errors agree; `muenster` shows them part.
"""

from __future__ import annotations

import numpy as np

from benchmarks.learning.series import SeriesTask
from benchmarks.learning.series_report import main
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

if __name__ == "__main__":
    raise SystemExit(main(TASK, "Speed forecasts of a week, 12 devices."))
