"""Forecast heads as arrays, and what goes into them."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save

from edge_models.forecast_heads import ForecastHead, Places, side_inputs
from edge_models.profiles import Profile
from edge_protocol.errors import IncompatibleError


def make_head(seed: int = 0) -> ForecastHead:
    """Draw a head of 3 features and 2 side inputs, for 2 horizons."""
    rng = np.random.default_rng(seed)
    return ForecastHead(*(rng.normal(size=shape).astype(np.float32) for shape in ((5, 5), (5,), (4, 5), (4,))))


def test_apply_is_the_shared_forecast_plus_a_hidden_layer() -> None:
    """One window by hand."""
    head, rng = make_head(), np.random.default_rng(1)
    features, side, shared = (rng.normal(size=(1, width)).astype(np.float32) for width in (3, 2, 4))
    z = head.first @ np.concatenate([features[0], side[0]]) + head.first_bias
    by_hand = shared[0] + head.second @ (z / (1 + np.exp(-z))) + head.second_bias
    np.testing.assert_allclose(head.apply(features, side, shared)[0], by_hand, rtol=1e-4)


def test_extreme_inputs_stay_finite() -> None:
    """No overflow in the activation, however far a reading lies."""
    big = np.full((1, 3), 1e6, np.float32)
    assert np.isfinite(make_head().apply(big, -big[:, :2], np.zeros((1, 4), np.float32))).all()


def test_bytes_round_trip() -> None:
    """What was written is read back exactly."""
    head = make_head()
    again = ForecastHead.from_bytes(head.to_bytes())
    for name in ("first", "first_bias", "second", "second_bias"):
        np.testing.assert_array_equal(getattr(again, name), getattr(head, name))


@pytest.mark.parametrize(
    "data", [b"", b"no head", make_head().to_bytes()[:-1], save({"first": np.zeros((5, 5), np.float32)})]
)
def test_other_bytes_are_refused(data: bytes) -> None:
    """Truncated, foreign or incomplete bytes are an error that says so."""
    with pytest.raises(IncompatibleError, match="are not a forecast head"):
        ForecastHead.from_bytes(data)


@pytest.mark.parametrize(
    "shapes", [((5, 5), (4,), (4, 5), (4,)), ((5, 5), (5,), (4, 6), (4,)), ((5,), (5,), (4,), (4,))]
)
def test_arrays_that_do_not_fit_are_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    """Each layer's bias and the next layer's width belong together."""
    with pytest.raises(IncompatibleError, match="make no forecast head"):
        ForecastHead(*(np.zeros(shape, np.float32) for shape in shapes))


def test_nan_is_refused() -> None:
    """A fit that diverged is never served."""
    head = make_head()
    with pytest.raises(IncompatibleError, match="NaN or infinity"):
        ForecastHead(head.first, head.first_bias, head.second * np.float32(np.nan), head.second_bias)


def test_another_number_of_sensors_asks_for_a_new_fit() -> None:
    """A sensor more is a column more."""
    features, shared = np.zeros((1, 3), np.float32), np.zeros((1, 4), np.float32)
    with pytest.raises(IncompatibleError, match="fit it again"):
        make_head().apply(features, np.zeros((1, 3), np.float32), shared)


def test_side_inputs_say_who_and_what_is_usual() -> None:
    """Sensor 1 reads 8 now and usually 10 an hour on, 2 off in units of its spread 4; sensor 0 was never measured."""
    values = np.array([[np.nan, 8], [np.nan, 10], [np.nan, 12]])
    profile = Profile.fit(values, [0, 3600, 25 * 3600], 3600)
    places = Places(np.array([48 * 3600.0, 48 * 3600.0]), np.array([1, 0]), np.array([9.0, 9.0]))
    found = side_inputs(places, [3600.0], profile, [1.0, 4.0])
    np.testing.assert_allclose(found, [[0, 1, (11 - 9) / 4], [1, 0, 0]])
    own = side_inputs(places, [3600.0], profile, [1.0, 4.0], np.array([[12.0], [np.nan]]))
    np.testing.assert_allclose(own[0], [0, 1, (10 - 9) / 4])
