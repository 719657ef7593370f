"""Cyclists in Münster (two years, real outages) on 21 devices of one counter each: shared and personal forecasts.

Counts of 15 minutes, 15 min, 45 min and 3 h ahead. Outages are masked; the columns "outage as 0" show what counting
them as readings would do.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from benchmarks.harness import Options, Outcome, run
from benchmarks.learning import series_report
from benchmarks.learning.kept import CACHE
from benchmarks.learning.series import SeriesTask
from devices.packs import SeriesPack
from edge_models.profiles import I8, WEEK_S
from edge_models.tasks import load_task
from edge_protocol.task import SeriesInput


def counters(pack: SeriesPack, devices: int, rng: np.random.Generator) -> list[I8]:
    """One counter for each device, the same with every seed: there are no more."""
    del pack, rng
    return [np.array([at]) for at in range(devices)]


TASK = SeriesTask(
    pack="muenster_cycle15",
    spec=msgspec.structs.replace(
        load_task("speed"),
        name="muenster",
        title="Cyclists a quarter of an hour",
        unit="cyclists",
        horizons=(1, 3, 12),
        input=SeriesInput(steps=12, interval_s=900),
        interval_s=900,
    ),
    devices=21,
    deal=counters,
    period_s=WEEK_S,
    stride=2,
    least=10.0,
    fixed=True,
)


def measured(options: Options, *, cache: Path) -> Outcome:
    """Forecasts of cyclists over two years, 21 devices."""
    return series_report.measured(options, task=TASK, cache=cache)


if __name__ == "__main__":
    raise SystemExit(run(measured, cache=CACHE))
