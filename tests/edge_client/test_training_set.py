"""What a job learns from, out of what is kept."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from edge_client.replay import Kept, ReplayStore
from edge_client.training_set import TrainingSet
from edge_models.habits import sensor_numbers
from edge_models.samples import F4
from tests.edge_client.test_trainer import SPEED, job


def plain(raw: npt.NDArray[np.generic]) -> F4:
    """Features that nothing is wrong with."""
    return np.ones((len(raw), 64), np.float32)


def of_sensors(folder: Path, order: npt.NDArray[np.int64], most: int) -> F4:
    """The numbers of the sensors whose windows a job learns from; of those kept, `order` says whose each is."""
    numbers = sensor_numbers([f"loop-{at}" for at in range(order.max() + 1)])
    asked = msgspec.structs.replace(job(folder, SPEED, proxies=0, samples=0), max_samples=most)
    raw, target, scale = np.ones((12, 4), np.float32), np.zeros(3, np.float32), np.ones(2, np.float32)
    store = ReplayStore(folder / "replay.db", 100_000_000)
    store.add(
        Kept(f"w-{at}", 1.7e9 + 300 * (at // 4), raw, target, numbers[sensor] if sensor >= 0 else None, scale)
        for at, sensor in enumerate(order.tolist())
    )
    store.close()
    side = TrainingSet.read(asked, plain).samples.side
    return side[:, 0] if side.shape[1] else np.full(len(side), np.nan, np.float32)


@pytest.mark.parametrize(("sensors", "rows", "most"), [(14, 93, 93), (13, 40, 40), (4, 30, 40), (1, 50, 20)])
def test_a_job_learns_from_all_sensors_alike(tmp_path: Path, sensors: int, rows: int, most: int) -> None:
    """Windows lie sensor by sensor in time: of every so-many-th, all could be of one. Early and late, too."""
    found = of_sensors(tmp_path, np.tile(np.arange(sensors), rows), most)
    assert len(found) == most
    for part in (found, found[: most // 2], found[most // 2 :]):
        counts = np.unique(part, return_counts=True)[1]
        assert len(counts) == sensors
        assert counts.max() - counts.min() <= 2


def test_a_sensor_with_few_windows_keeps_them(tmp_path: Path) -> None:
    """Those that have many give way; windows from before sensors had numbers count as one more sensor."""
    order = np.concatenate([np.zeros(200, np.int64), np.full(6, 1), np.full(100, -1)])
    found = of_sensors(tmp_path, order, 60)
    counts = np.unique(found, return_counts=True)[1]
    assert sorted(counts.tolist()) == [6, 27, 27]


def test_windows_without_numbers_are_thinned_out_evenly(tmp_path: Path) -> None:
    """A store from before sensors had numbers is one sensor's."""
    assert len(of_sensors(tmp_path, np.full(100, -1), 30)) == 30
