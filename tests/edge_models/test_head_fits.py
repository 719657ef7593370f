"""What each type of head learns."""

from __future__ import annotations

import numpy as np
import pytest

from edge_models.fit import labelled
from edge_models.head_fits import FITS, FitSettings, MlpSettings, fit_adapter, fit_bias, fit_linear, fit_mlp
from edge_models.head_weights import HeadType, HeadWeights

SETTINGS = FitSettings(mlp=MlpSettings(steps=200, batch=64), rank=2)


def shared(outputs: int, inputs: int, features: int) -> HeadWeights:
    """A head that says something of its own."""
    weight = np.random.default_rng(9).normal(size=(outputs, inputs)).astype(np.float32)
    return HeadWeights(weight, np.full(outputs, 0.7, np.float32), features)


def sensors(n: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (4 features, one-hot sensor) and targets: sensor 0 goes with the first feature, sensor 1 against it."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 4)).astype(np.float32)
    sensor = rng.integers(0, 2, n)
    targets = np.where(sensor == 0, 1, -1)[:, None] * features[:, :1] + 0.1 * rng.normal(size=(n, 1))
    return np.hstack([features, np.eye(2, dtype=np.float32)[sensor]]), targets.astype(np.float32)


def blank() -> HeadWeights:
    """A shared forecast of 0 from 4 features and 2 side inputs."""
    return HeadWeights(np.zeros((2, 6), np.float32), np.zeros(2, np.float32), 4)


def error(head: HeadWeights, horizon: int = 0) -> float:
    """Mean error on fresh windows, in units of the mean change."""
    inputs, targets = sensors(seed=1)
    said = head.apply(inputs[:, :4], inputs[:, 4:])[:, horizon]
    return float(np.abs(said - targets[:, 0]).mean() / np.abs(targets).mean())


def test_a_hidden_layer_learns_what_only_the_device_can_know() -> None:
    """Sensors that answer the same feature in opposite ways cancel out in any linear head; a hidden layer does not."""
    assert error(fit_mlp(*sensors(), blank(), SETTINGS)) < 0.35
    assert error(fit_linear(*sensors(), blank(), SETTINGS)) > 0.9


def test_an_adapter_s_change_of_the_features_is_folded_into_a_linear_head() -> None:
    """It has the rank that was asked for, and moves the shared head's answers towards the truth."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(2, 3, (400, 8)).astype(np.float32)
    targets = (inputs[:, 0] > 2).astype(np.int64)
    start = shared(3, 8, 8)
    head = fit_adapter(inputs, targets, start, SETTINGS)
    assert head.hidden is None
    change = np.linalg.svd(head.weight - start.weight, compute_uv=False)
    assert (change[2:] < 1e-4 * change[0]).all()
    assert change[1] > 1e-3 * change[0]
    right = [float((each.apply(inputs).argmax(1) == targets).mean()) for each in (start, head)]
    assert right[0] < 0.8
    assert right[1] > 0.95


def test_biases_come_to_say_how_common_each_class_is() -> None:
    """Where features tell nothing, the answer nears the device's own shares of classes; two samples hardly move it."""
    targets = np.repeat([0, 1], [300, 100])
    blind = HeadWeights(np.zeros((3, 8), np.float32), np.zeros(3, np.float32), 8)
    shares = []
    for labels in (targets, targets[:2]):
        head = fit_bias(np.ones((len(labels), 8), np.float32), labels, blind, SETTINGS)
        assert head.weight is blind.weight
        odds = np.exp(head.bias)
        shares.append(odds / odds.sum())
    np.testing.assert_allclose(shares[0], [0.75, 0.25, 0], atol=0.03)
    assert 0.4 < shares[1][0] < 0.9


def test_biases_of_a_forecast_take_away_what_it_is_off() -> None:
    """A mean that is 0.5 too low at one horizon is moved there, and a horizon without any reading stays."""
    truth = np.stack([np.full(200, 0.5), np.full(200, np.nan)], axis=1).astype(np.float32)
    start = HeadWeights(np.zeros((4, 8), np.float32), np.zeros(4, np.float32), 8)
    moved = fit_bias(np.ones((200, 8), np.float32), truth, start, SETTINGS).bias
    assert moved[0] == pytest.approx(0.5, abs=0.05)
    assert moved[1] == 0


@pytest.mark.parametrize("kind", FITS)
def test_a_strong_pull_leaves_the_shared_head(kind: HeadType) -> None:
    """Every type starts there, and is pulled back to it."""
    inputs = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    targets = np.arange(50) % 3
    start = shared(3, 8, 8)
    settings = FitSettings(anchor=1e6, pull=1e6, bias_pull=1e8, mlp=MlpSettings(steps=1, learning_rate=1e-9))
    head = FITS[kind](inputs, targets, start, settings, lambda: None)
    np.testing.assert_allclose(head.apply(inputs), start.apply(inputs), atol=1e-3)


def test_missing_targets_do_not_count() -> None:
    """Windows without any measurement change nothing; one missing horizon leaves the other its say."""
    inputs, targets = sensors()
    gaps = labelled(np.vstack([inputs, inputs]), np.vstack([targets, np.full_like(targets, np.nan)]))
    same = fit_mlp(*sensors(), blank(), SETTINGS)
    assert fit_mlp(*gaps, blank(), SETTINGS).to_bytes() == same.to_bytes()
    wide = HeadWeights(np.zeros((4, 6), np.float32), np.zeros(4, np.float32), 4)
    half = fit_mlp(inputs, np.hstack([targets, np.full_like(targets, np.nan)]), wide, SETTINGS)
    assert error(half) < 0.35
    np.testing.assert_allclose(half.apply(inputs[:, :4], inputs[:, 4:])[:, 1], 0, atol=0.5)


def test_without_samples_a_hidden_layer_is_the_shared_head() -> None:
    """It adds nothing."""
    start = shared(2, 6, 4)
    inputs, targets = sensors(5)
    head = fit_mlp(inputs[:0], targets[:0], start, SETTINGS)
    np.testing.assert_array_equal(head.apply(inputs[:, :4], inputs[:, 4:]), start.apply(inputs[:, :4], inputs[:, 4:]))


@pytest.mark.parametrize("kind", FITS)
def test_the_same_arguments_give_the_same_head(kind: HeadType) -> None:
    """Byte for byte."""
    one, same = (FITS[kind](*sensors(), blank(), SETTINGS, lambda: None) for _ in range(2))
    assert one.to_bytes() == same.to_bytes()


def test_another_seed_gives_another_hidden_layer() -> None:
    """First layer and batches are drawn from it."""
    one, other = (
        fit_mlp(*sensors(), blank(), FitSettings(mlp=MlpSettings(steps=20, batch=64, seed=seed))) for seed in (0, 1)
    )
    assert one.to_bytes() != other.to_bytes()
