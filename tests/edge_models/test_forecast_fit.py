"""What a device's forecast head learns."""

from __future__ import annotations

import numpy as np
import pytest

from edge_models.forecast_fit import ForecastFitSettings, fit_forecast_head
from edge_protocol.errors import DataError

Fitted = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
SETTINGS = ForecastFitSettings(steps=200, batch=64)


def windows(n: int = 600, seed: int = 0) -> Fitted:
    """Features, side, shared forecasts and targets: sensor 0 goes with the first feature, sensor 1 against it."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 4)).astype(np.float32)
    sensor = rng.integers(0, 2, n)
    side = np.eye(2, dtype=np.float32)[sensor]
    targets = np.where(sensor == 0, 1, -1)[:, None] * features[:, :1] + 0.1 * rng.normal(size=(n, 1))
    return features, side, np.zeros((n, 2), np.float32), targets.astype(np.float32)


def test_it_learns_what_only_the_device_can_know() -> None:
    """Sensors that answer the same feature in opposite ways cancel out in a shared model; the head tells them apart."""
    head = fit_forecast_head(*windows(), SETTINGS)
    features, side, shared, targets = windows(seed=1)
    error = np.abs(head.apply(features, side, shared)[:, :1] - targets).mean()
    assert error < 0.35 * np.abs(targets).mean()


def test_missing_targets_do_not_count() -> None:
    """Windows without any measurement change nothing; one missing horizon leaves the other its say."""
    features, side, shared, targets = windows()
    gaps = [np.vstack([array, array]) for array in (features, side, shared)]
    head = fit_forecast_head(*gaps, np.vstack([targets, np.full_like(targets, np.nan)]), SETTINGS)
    np.testing.assert_array_equal(head.first, fit_forecast_head(*windows(), SETTINGS).first)
    both = np.hstack([targets, np.full_like(targets, np.nan)])
    half = fit_forecast_head(features, side, np.hstack([shared, shared]), both, SETTINGS)
    answer = half.apply(features, side, np.hstack([shared, shared]))
    assert np.abs(answer[:, :1] - targets).mean() < 0.35 * np.abs(targets).mean()
    np.testing.assert_allclose(answer[:, 1], 0, atol=0.5)


def test_without_measurements_it_is_the_shared_model() -> None:
    """No window, or none with a target: the shared forecast."""
    features, side, shared, targets = windows(5)
    shared = shared + np.float32(0.7)
    for kept in (slice(0, 0), slice(0, 5)):
        head = fit_forecast_head(features[kept], side[kept], shared[kept], targets[kept] * np.float32(np.nan), SETTINGS)
        np.testing.assert_array_equal(head.apply(features, side, shared), shared)


def test_the_same_arguments_give_the_same_head() -> None:
    """Bit for bit, and another seed gives another."""
    one, same = (fit_forecast_head(*windows(), SETTINGS) for _ in range(2))
    np.testing.assert_array_equal(one.second, same.second)
    other = fit_forecast_head(*windows(), ForecastFitSettings(steps=200, batch=64, seed=1))
    assert not np.array_equal(one.second, other.second)


@pytest.mark.parametrize("at", range(3))
def test_nan_inputs_are_refused(at: int) -> None:
    """A missing reading is masked in the window, never NaN in features, side or shared forecasts."""
    data = [array.copy() for array in windows()]
    data[at][3, 0] = np.nan
    with pytest.raises(DataError, match="NaN or infinity"):
        fit_forecast_head(*data, SETTINGS)


def test_lengths_that_differ_are_refused() -> None:
    """One target too few."""
    features, side, shared, targets = windows()
    with pytest.raises(DataError, match="do not belong together"):
        fit_forecast_head(features, side, shared, targets[1:], SETTINGS)
