"""Scores of forecasts, against arithmetic by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edge_models.kinds import forecast
from edge_models.tasks import load_task
from edge_protocol.errors import DataError

SPEC = load_task("speed")
NAN = np.nan


def test_errors_are_in_the_sensors_own_unit_and_only_where_measured() -> None:
    """An error of one spread is that many miles per hour; missing horizons count nowhere."""
    logits = np.zeros((2, 6), np.float32)
    logits[0, 0] = 1
    targets = np.array([[0, NAN, 2], [NAN, NAN, -1]], np.float32)
    scale = np.array([[50, 4], [30, 10]], np.float32)
    found = forecast.score(SPEC, logits, targets, scale)
    assert next(iter(found)) == "mae"
    assert found["mae"] == pytest.approx((4 + 8 + 10) / 3)
    assert found["rmse"] == pytest.approx(np.sqrt((16 + 64 + 100) / 3))
    assert found["mae_15min"] == pytest.approx(4)
    assert found["mae_60min"] == pytest.approx(9)
    assert found["mae_persistence"] == pytest.approx((0 + 8 + 10) / 3)
    assert "mae_30min" not in found


def test_a_score_needs_scale_and_a_measured_horizon() -> None:
    """Without the sensors' scale, or without any truth, there is no score."""
    logits, targets = np.zeros((1, 6), np.float32), np.full((1, 3), NAN, np.float32)
    with pytest.raises(DataError, match="scale"):
        forecast.score(SPEC, logits, targets)
    with pytest.raises(DataError, match="none of 1"):
        forecast.score(SPEC, logits, targets, np.ones((1, 2), np.float32))


def test_simulated_windows_have_outages_and_truth() -> None:
    """Drawn windows are as many as asked for, some readings are missing, every window has a measured horizon."""
    samples = forecast.simulate(SPEC, np.random.default_rng(0), 100)
    assert len(samples) == 100
    assert 0 < (samples.raw[..., 1] == 0).mean() < 0.2
    assert samples.labelled.all()
    assert forecast.side({"anything": "1"}).shape == (0,)


def test_an_image_task_has_no_series() -> None:
    """Simulating a series for a camera is refused."""
    with pytest.raises(DataError, match="image"):
        forecast.simulate(load_task("vehicle"), np.random.default_rng(0), 2)
