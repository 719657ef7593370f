"""A sensor's scale is its own, whatever its column, and outlives a restart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edge_client.replay import Kept, ReplayStore
from edge_client.sensor_windows import live_windows, past_readings
from edge_models.tasks import load_task
from edge_models.windows import LiveWindows
from tests.edge_models.test_habits import NAMES, days, road_pack

SPEED = load_task("speed")
LEVELS = np.array([10.0, 400.0])


def lived(path: Path, windows: LiveWindows, values: npt.NDArray[np.float64], times: npt.NDArray[np.float64]) -> None:
    """Readings come, and the windows that mature are kept."""
    store = ReplayStore(path, 20_000_000)
    for row, at_s in zip(values, times, strict=True):
        matured = windows.push(row, at_s)[1]
        store.add(
            Kept(f"{at_s}-{at}", end_s, window, target, side, scale)
            for at, (window, target, side, scale, end_s) in enumerate(matured)
        )
    store.close()


def test_columns_in_another_order_have_the_scale_of_their_names(tmp_path: Path) -> None:
    """A logger that tells the pack's sensors the other way round, and one that it does not know."""
    values, times = days(2)
    pack = road_pack(values + LEVELS, times)
    windows = live_windows(SPEED, (*NAMES[::-1], "new"), pack, tmp_path / "none.db")
    assert windows.scale.mean[:2] == pytest.approx(50 + LEVELS[::-1], abs=2)
    assert np.isnan(windows.scale.std[2])
    now, _ = windows.push([450.0, 60.0, 5.0], times[-1] + 300)
    assert np.abs(now[:2, -1, 0]).max() < 2
    assert now[:, -1, 1].tolist() == [1, 1, 0]
    for at in range(12):
        now, _ = windows.push([450.0, 60.0, 5.0 + at], times[-1] + 600 + 300 * at)
    assert now[:, -1, 1].tolist() == [1, 1, 1]


def test_a_learned_scale_outlives_a_restart_and_an_absurd_reading(tmp_path: Path) -> None:
    """The first reading after it is measured, by the scale of all days; what a glitch had done is over by then."""
    values, times = days(3)
    values += LEVELS
    values[5, 0] = 65535.0
    first = live_windows(SPEED, NAMES, None, tmp_path / "replay.db")
    lived(tmp_path / "replay.db", first, values, times)
    assert first.scale.std[0] > 1000
    again = live_windows(SPEED, NAMES[::-1], None, tmp_path / "replay.db")
    assert again.scale.mean == pytest.approx(np.nanmean(values[20:], axis=0)[::-1], rel=0.05)
    assert again.scale.std == pytest.approx(np.nanstd(values[20:], axis=0)[::-1], rel=0.1)
    now, _ = again.push([450.0, np.nan], times[-1] + 300)
    assert now[:, -1, 1].tolist() == [1, 0]


def test_a_store_without_what_is_asked_begins_anew(tmp_path: Path) -> None:
    """No file, one that is no store, one of other sensors, and one from before sensors had numbers."""
    values, times = days(1)
    lived(tmp_path / "others.db", live_windows(SPEED, NAMES, None, tmp_path / "none.db"), values, times)
    lived(tmp_path / "nameless.db", LiveWindows(SPEED, 2), values, times)
    (tmp_path / "damaged.db").write_bytes(b"x" * 5000)
    (tmp_path / "folder.db").mkdir()
    for name in ("none", "damaged", "folder", "nameless", "others"):
        assert past_readings(tmp_path / f"{name}.db", SPEED, ("east",)).shape == (0, 1)
        assert np.isnan(live_windows(SPEED, ("east",), None, tmp_path / f"{name}.db").scale.std).all()
