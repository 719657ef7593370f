"""Heads fitted on devices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_models.fit import _split, fit_personal_head, fit_report_head, labelled
from edge_models.head_fits import FITS, FitSettings, MlpSettings, no_tick
from edge_models.head_weights import HeadType, HeadWeights
from edge_models.tasks import load_task
from edge_protocol.errors import DataError

VEHICLE, SPEED = load_task("vehicle"), load_task("speed")
SETTINGS = FitSettings()


def images(n: int = 240, classes: tuple[int, ...] = (0, 1, 2), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw features in which each class lies on its own axis."""
    rng = np.random.default_rng(seed)
    targets = rng.choice(classes, n)
    features = rng.normal(0, 0.5, (n, 64)).astype(np.float32)
    features[np.arange(n), targets] += 2
    return features, targets.astype(np.int64)


def windows(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw features whose first column is the change at every horizon, some of it not measured."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 64)).astype(np.float32)
    targets = (features[:, :1] + rng.normal(0, 0.1, (n, 3))).astype(np.float32)
    targets[rng.random((n, 3)) < 0.2] = np.nan
    return features, targets


def blank(outputs: int) -> HeadWeights:
    """A shared head that knows nothing."""
    return HeadWeights(np.zeros((outputs, 64), np.float32), np.zeros(outputs, np.float32))


def axes() -> HeadWeights:
    """A shared head that knows all six classes."""
    return HeadWeights(np.eye(6, 64, dtype=np.float32) * 2, np.zeros(6, np.float32))


def no_side(n: int) -> np.ndarray:
    """Side inputs of a task without any."""
    return np.zeros((n, 0), np.float32)


def test_forecast_report_learns_mean_and_spread() -> None:
    """The mean follows the feature and the spread comes near the true noise of 0.1."""
    features, targets = windows()
    head = fit_report_head(features, targets, blank(6), FitSettings(epochs=200, anchor=1e-4))
    fresh, truth = windows(seed=1)
    outputs = head.apply(fresh)
    assert np.nanmean(np.abs(outputs[:, :3] - truth)) < 0.2
    assert 0.05 < np.exp(outputs[:, 3:]).mean() < 0.2


def test_unmeasured_samples_are_left_out_and_none_gives_the_shared_head() -> None:
    """Windows without a measured target change nothing; without any the report is the shared model's own."""
    features, targets = windows()
    nothing = np.full_like(targets, np.nan)
    with_extra = fit_report_head(
        np.concatenate([features, features + 9]), np.concatenate([targets, nothing]), blank(6), SETTINGS
    )
    np.testing.assert_array_equal(with_extra.weight, fit_report_head(features, targets, blank(6), SETTINGS).weight)
    shared = blank(6)
    assert fit_report_head(features, nothing, shared, SETTINGS) is shared


def test_fits_are_deterministic() -> None:
    """The same samples and seed give the same bytes."""
    features, targets = images()
    heads = [fit_personal_head(features, no_side(240), targets, blank(6), VEHICLE, SETTINGS).head for _ in range(2)]
    assert heads[0].to_bytes() == heads[1].to_bytes()


def test_personal_head_is_chosen_when_it_is_better() -> None:
    """A blank shared head loses on the samples kept back, and the scores say so."""
    features, targets = images()
    fit = fit_personal_head(features, no_side(240), targets, blank(6), VEHICLE, SETTINGS)
    assert fit.chosen == "personal"
    assert fit.personal["accuracy"] > fit.shared["accuracy"]
    assert fit.n_valid == 60
    assert 140 < fit.n_train <= 180


def test_shared_head_stays_when_nothing_is_gained() -> None:
    """Where the shared head is right already, it stays, as the same object."""
    features, targets = images(seed=3)
    features[np.arange(240), targets] += 8
    shared = axes()
    fit = fit_personal_head(features, no_side(240), targets, shared, VEHICLE, SETTINGS)
    assert fit.chosen == "shared"
    assert fit.head is shared
    assert fit.shared["accuracy"] == 1


def test_of_heads_that_are_right_alike_the_surer_serves() -> None:
    """A camera that sees one class knows it: where no head errs on the few samples kept back, its own is the better."""
    features, _ = images(seed=4)
    targets = np.zeros(240, np.int64)
    features[:, 0] += 4
    shared = HeadWeights((axes().weight / 4).astype(np.float32), axes().bias)
    fit = fit_personal_head(features, no_side(240), targets, shared, VEHICLE, SETTINGS)
    assert fit.shared["accuracy"] == fit.personal["accuracy"] == 1
    assert fit.personal["log_loss"] < fit.shared["log_loss"] / 2
    assert fit.chosen == "personal"


def passing(vehicles: int, frames: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw what the classes look like, and features of so many frames each of vehicles that pass one by one."""
    rng = np.random.default_rng(seed)
    looks = rng.normal(size=(6, 64))
    targets = rng.integers(0, 6, vehicles)
    each = np.repeat(looks[targets] + 3 * rng.normal(size=(vehicles, 64)), frames, 0)
    features = (each + 0.3 * rng.normal(size=each.shape)).astype(np.float32)
    return looks, features, np.repeat(targets, frames).astype(np.int64)


@pytest.mark.parametrize("by_class", [False, True])
def test_frames_of_one_vehicle_do_not_vouch_for_a_head(by_class: bool) -> None:
    """Its score comes near that on vehicles never seen, in order of time as in a pack that is sorted by class."""
    told, true = [], []
    for seed in range(3):
        looks, features, targets = passing(40, 12, seed)
        if by_class:
            order = np.argsort(targets, kind="stable")
            features, targets = features[order], targets[order]
        shared = HeadWeights((0.35 * looks).astype(np.float32), np.zeros(6, np.float32))
        fit = fit_personal_head(features, no_side(480), targets, shared, VEHICLE, FitSettings(heads=("linear",)))
        every = FITS["linear"](features, targets, shared, SETTINGS, no_tick)
        fresh = np.random.default_rng([seed, 1])
        truth = fresh.integers(0, 6, 2000)
        asked = (looks[truth] + 3 * fresh.normal(size=(2000, 64))).astype(np.float32)
        told.append(fit.personal["accuracy"])
        true.append(float((every.apply(asked).argmax(1) == truth).mean()))
    assert np.mean(told) - np.mean(true) < 0.05


@given(st.lists(st.integers(0, 5), min_size=32, max_size=120))
def test_every_class_that_occurs_is_learnt_before_the_choice(classes: list[int]) -> None:
    """Whatever occurs how often; the classes kept back are as common there as among all samples."""
    targets = np.array(classes, np.int64)
    features = np.random.default_rng(0).normal(size=(len(classes), 64)).astype(np.float32)
    learn, ask = _split(features, targets, SETTINGS)
    assert not {*learn} & {*ask}
    assert set(targets[learn]) == set(classes)
    np.testing.assert_array_equal(
        np.bincount(targets[ask], minlength=6), np.round(np.bincount(targets, minlength=6) / 4)
    )


def test_classes_that_occur_once_each_leave_no_choice() -> None:
    """Nothing can be kept back, so biases move at most, as with too few samples."""
    blank_of_many = HeadWeights(np.zeros((40, 64), np.float32), np.zeros(40, np.float32))
    features = np.random.default_rng(0).normal(size=(40, 64)).astype(np.float32)
    fit = fit_personal_head(features, no_side(40), np.arange(40), blank_of_many, VEHICLE, SETTINGS)
    assert (fit.kind, fit.personal, fit.n_train, fit.n_valid) == ("bias", {}, 40, 0)


def test_a_newcomer_s_few_samples_move_the_biases_alone() -> None:
    """With too few labels to choose by there is no score to show, but how common classes are is learnt."""
    features, targets = images(10, classes=(2,))
    fit = fit_personal_head(features, no_side(10), targets, axes(), VEHICLE, SETTINGS)
    assert (fit.chosen, fit.kind) == ("personal", "bias")
    assert (fit.shared, fit.personal, fit.n_train, fit.n_valid) == ({}, {}, 10, 0)
    np.testing.assert_array_equal(fit.head.weight, axes().weight)
    assert fit.head.bias.argmax() == 2
    assert fit.head.bias[2] > 0.9


@pytest.mark.parametrize("heads", [("linear",), ("bias", "linear")])
def test_without_leave_or_labels_few_samples_keep_the_shared_head(heads: tuple[HeadType, ...]) -> None:
    """Biases need leave and a label; a forecaster's few windows tell of one hour alone."""
    settings = FitSettings(heads=heads)
    features, targets = images(10)
    (seen, changes), shared = windows(10), axes()
    untold = [(features, np.full(10, -1), VEHICLE), (seen, changes, SPEED)]
    if "bias" not in heads:
        untold.append((features, targets, VEHICLE))
    for inputs, truth, spec in untold:
        fit = fit_personal_head(inputs, no_side(10), truth, shared, spec, settings)
        assert (fit.chosen, fit.shared, fit.personal, fit.n_valid) == ("shared", {}, {}, 0)
        assert fit.head is shared


def test_side_inputs_reach_the_personal_head() -> None:
    """When only the side input tells the classes apart, the personal head uses it, whatever its unit."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 300)
    side = (1000 + 50 * targets[:, None] + rng.normal(0, 5, (300, 1))).astype(np.float32)
    features = rng.normal(size=(300, 64)).astype(np.float32)
    fit = fit_personal_head(features, side, targets, blank(6), VEHICLE, SETTINGS)
    assert fit.head.side == 1
    assert fit.personal["accuracy"] > 0.95


def test_forecasts_keep_back_the_last_samples_and_score_in_the_unit() -> None:
    """The personal head is tested on the future, in mph: twice the spread is twice the error."""
    features, targets = windows()
    scale = np.tile(np.array([50, 1], np.float32), (200, 1))
    once = fit_personal_head(features, no_side(200), targets, blank(6), SPEED, SETTINGS, scale=scale)
    twice = fit_personal_head(features, no_side(200), targets, blank(6), SPEED, SETTINGS, scale=scale * [1, 2])
    assert once.chosen == "personal"
    assert once.personal["mae"] < once.shared["mae"]
    assert twice.personal["mae"] == pytest.approx(2 * once.personal["mae"], rel=1e-3)


def test_bad_input_is_refused() -> None:
    """NaN features and targets of another length are errors that say what to do."""
    features, targets = images(20)
    with pytest.raises(DataError, match="belong together"):
        fit_personal_head(features, no_side(20), targets[:-1], blank(6), VEHICLE, SETTINGS)
    features[3, 3] = np.nan
    with pytest.raises(DataError, match="NaN"):
        fit_personal_head(features, no_side(20), targets, blank(6), VEHICLE, SETTINGS)


def test_the_best_type_of_head_is_chosen_on_samples_kept_back() -> None:
    """Where a class lies on both ends of one axis, only a hidden layer can tell it; each type's score is told."""
    rng = np.random.default_rng(2)
    features = rng.normal(size=(600, 64)).astype(np.float32)
    features[:, 1:16] = features[:, :1] + 0.5 * features[:, 1:16]
    targets = (np.abs(features[:, 0]) > 0.7).astype(np.int64)
    settings = FitSettings(heads=("linear", "adapter", "mlp"), mlp=MlpSettings(steps=200))
    fit = fit_personal_head(features, no_side(600), targets, blank(6), VEHICLE, settings)
    assert (fit.chosen, fit.kind) == ("personal", "mlp")
    assert set(fit.tried) == {"linear", "adapter", "mlp"}
    assert fit.personal["accuracy"] > max(fit.tried["linear"]["accuracy"], fit.tried["adapter"]["accuracy"])
    assert fit.head.hidden is not None


def test_of_equal_types_the_first_is_preferred() -> None:
    """The order in the configuration is the order of preference."""
    features, targets = images()
    features[np.arange(240), targets] += 8
    for heads in (("linear", "adapter"), ("adapter", "linear")):
        fit = fit_personal_head(features, no_side(240), targets, axes(), VEHICLE, FitSettings(heads=heads))
        assert fit.tried["linear"] == fit.tried["adapter"]
        assert fit.kind == heads[0]


def test_every_step_is_counted() -> None:
    """A caller that measures the fit hears of each step of every type that is tried."""
    features, targets = images()
    heard: list[int] = []
    settings = FitSettings(heads=("mlp",), mlp=MlpSettings(steps=7))
    fit_personal_head(features, no_side(240), targets, blank(6), VEHICLE, settings, tick=lambda: heard.append(1))
    assert len(heard) == 14, "once for the choice, once for the head that serves"
    fit_report_head(*windows(40), blank(6), FitSettings(epochs=5), tick=lambda: heard.append(1))
    assert len(heard) > 14, "and those of a forecaster's report"


def test_infinite_targets_are_refused() -> None:
    """A forecast is measured or NaN."""
    features, targets = windows(20)
    targets[2, 1] = np.inf
    with pytest.raises(DataError, match="infinity"):
        labelled(features, targets)
