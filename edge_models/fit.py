"""Fits heads on a device: one that teaches others (report), one that serves the device (personal).

Owns split and choice; owns no trunk, no sample store and no file. How a type of head is fitted: see `head_fits`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from edge_models.head_fits import FITS, FitSettings, Targets, Tick, answers, fit_bias, fit_linear, no_tick
from edge_models.head_weights import FloatArray, HeadType, HeadWeights
from edge_models.sensor_history import SensorHistory
from edge_models.tasks import TaskPlugin, plugin_of
from edge_protocol.errors import DataError
from edge_protocol.task import TaskSpec

Scores = dict[str, float]
I8 = npt.NDArray[np.int64]

NEAR = 1.5
"""Of n samples of a class up to so many times √n, and half of those not kept back, may be left out beside these."""
LOG_LOSS = "log_loss"
"""Score that speaks for a classifier's head too: of two dozen samples, how many are right tells too little."""


@dataclass(frozen=True, eq=False)
class PersonalFit:
    """What came of fitting personal heads.

    Attributes:
        head: the head to serve: the best personal one or, when it won, the shared one.
        chosen: which of both it is.
        kind: type of the best personal head.
        shared: scores of the shared head on the samples kept back; empty when there were too few to tell.
        tried: scores of each type of personal head on them.
        n_train, n_valid: labelled samples fitted on for the choice, and kept back; those between them are neither.
    """

    head: HeadWeights
    chosen: Literal["shared", "personal"]
    kind: HeadType
    shared: Scores
    tried: Mapping[HeadType, Scores]
    n_train: int
    n_valid: int

    @property
    def personal(self) -> Scores:
        """Scores of the best personal head."""
        return self.tried.get(self.kind, {})


def fit_report_head(
    features: FloatArray, targets: FloatArray, shared: HeadWeights, settings: FitSettings, tick: Tick = no_tick
) -> HeadWeights:
    """Fit the head that answers a round of a forecaster (a classifier's is `ratio_head`'s); always a linear one.

    Args:
        features: (N, K) float32 of the shared trunk.
        targets: (N, H) float32, NaN missing.
        shared: head of the release.
        settings: how.
        tick: called after every step.

    Returns:
        A head of K inputs; the shared head itself when nothing is labelled.

    Raises:
        DataError: features hold NaN or infinity, or their number differs from the targets'.
    """
    features, kept = labelled(features, targets)
    return fit_linear(features, kept, shared, settings, tick) if len(features) else shared


def fit_personal_head(
    features: FloatArray,
    side: FloatArray | SensorHistory,
    targets: Targets,
    shared: HeadWeights,
    spec: TaskSpec,
    settings: FitSettings,
    *,
    scale: FloatArray | None = None,
    tick: Tick = no_tick,
) -> PersonalFit:
    """Fit the head that serves this device, and keep the shared one when that is better on samples kept back.

    Better is one with a better headline score or, a classifier's, with a smaller log loss.

    Kept back are the last samples, of each class its own: a random share would hold the vehicles that were learnt, a
    frame on. Every allowed type of head is tried on the rest; the head that is returned was fitted on all samples, the
    choice and the scores come from the split. With too few samples to choose by, a classifier gets its biases fitted,
    where that is allowed.

    Args:
        features: (N, K) float32 of the shared trunk, in order of time.
        side: (N, F) float32, the device's own inputs; F may be 0. Or what its sensors have read: then their habits are
            the inputs, learnt from the rest for the choice, and from everything for the head that is returned.
        targets: as for `fit_report_head`, or (N,) int64 classes, -1 unlabelled.
        shared: head of the release.
        spec: the task.
        settings: how.
        scale: (N, 2) float32, mean and spread of each sample's sensor, so that errors are in the task's unit.
        tick: called after every step.

    Raises:
        DataError: inputs hold NaN or infinity, or their lengths differ.
    """
    scale = np.tile(np.array([0, 1], np.float32), (len(features), 1)) if scale is None else scale
    own = side if isinstance(side, SensorHistory) else _Given(side)
    given = features if isinstance(side, SensorHistory) else np.hstack([features, side])
    rows = np.flatnonzero(_measured(given, targets))
    learn, ask = _split(features[rows], targets[rows], settings)
    if not len(ask):
        return _of_few(features[rows], targets[rows], shared, spec, settings, tick)
    train, valid = rows[learn], rows[ask]
    learnt, asked, _ = own.split(train, valid)
    known, other = _joined(features[train], learnt), _joined(features[valid], asked)
    wide, plugin = shared.widened(learnt.shape[1]), plugin_of(spec)

    def score(head: HeadWeights) -> Scores:
        said, truth = answers(head, other), targets[valid]
        told = plugin.score(spec, said, truth, scale[valid])
        return told if spec.kind == "forecast" else told | {LOG_LOSS: _log_loss(said, truth)}

    before = score(wide)
    tried = {kind: score(FITS[kind](known, targets[train], wide, settings, tick)) for kind in settings.heads}
    gains = {kind: _gain(before, scores, plugin) for kind, scores in tried.items()}
    kind = max(settings.heads, key=gains.__getitem__)
    if not max(gains[kind]) > 0:
        return PersonalFit(shared, "shared", kind, before, tried, len(train), len(valid))
    everything, _, habits = own.split(rows, rows[:0])
    head = FITS[kind](_joined(features[rows], everything), targets[rows], wide, settings, tick)
    return PersonalFit(replace(head, habits=habits), "personal", kind, before, tried, len(train), len(valid))


def _of_few(
    features: FloatArray, targets: Targets, shared: HeadWeights, spec: TaskSpec, settings: FitSettings, tick: Tick
) -> PersonalFit:
    """What too few samples to choose by are good for: a classifier's class mix, and no forecast's."""
    if spec.kind == "forecast" or "bias" not in settings.heads or not len(targets):
        return PersonalFit(shared, "shared", settings.heads[0], {}, {}, len(targets), 0)
    head = fit_bias(features, targets, shared, settings, tick)
    return PersonalFit(head, "personal", "bias", {}, {}, len(targets), 0)


@dataclass(frozen=True, eq=False)
class _Given:
    """Side inputs that samples bring along."""

    side: FloatArray

    def split(self, learn: I8, ask: I8) -> tuple[FloatArray, FloatArray, None]:
        return self.side[learn], self.side[ask], None


def _joined(features: FloatArray, side: FloatArray) -> FloatArray:
    return np.hstack([features, side]).astype(np.float32)


def _log_loss(logits: FloatArray, truth: Targets) -> float:
    """Mean of minus the logarithm of the probability of each sample's class; a proper score (Good 1952).

    In thousandths of a nat: heads that differ by less are equal, and the shared one, or the first in order, stays.
    """
    raised = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return round(float(np.mean(np.log(np.exp(raised).sum(axis=1)) - raised[np.arange(len(truth)), truth])), 3)


def _gain(before: Scores, after: Scores, plugin: TaskPlugin) -> tuple[float, ...]:
    """By how much a head is better: in its headline score, then in log loss."""
    more = after[plugin.headline] - before[plugin.headline]
    headline = more if plugin.higher_is_better else -more
    return (headline, before[LOG_LOSS] - after[LOG_LOSS]) if LOG_LOSS in after else (headline,)


def labelled(inputs: FloatArray, targets: Targets) -> tuple[FloatArray, Targets]:
    """Inputs and targets of the samples that have a class, or at least one measured horizon.

    Raises:
        DataError: inputs hold NaN or infinity, or their number differs from the targets'.
    """
    kept = _measured(inputs, targets)
    return inputs[kept], targets[kept]


def _measured(inputs: FloatArray, targets: Targets) -> npt.NDArray[np.bool_]:
    if len(inputs) != len(targets):
        raise DataError(f"{len(inputs)} samples came with {len(targets)} targets; both must belong together")
    if not np.isfinite(inputs).all() or np.isinf(targets).any():
        raise DataError("features, side inputs or targets hold NaN or infinity; leave such samples out before fitting")
    return np.asarray(targets >= 0 if targets.ndim == 1 else ~np.isnan(targets).all(1))


def _split(features: FloatArray, targets: Targets, settings: FitSettings) -> tuple[I8, I8]:
    """Places to learn from and places to keep back: none of too few samples, and none of a class of one or two."""
    count, share = len(targets), settings.validation
    if count < settings.min_samples:
        return np.arange(count), np.arange(0)
    if targets.ndim > 1:
        cut = count - max(1, round(count * share))
        return np.arange(cut), np.arange(cut, count)
    parts = [_parted(features, np.flatnonzero(targets == label), share) for label in np.unique(targets)]
    learn, ask = (np.sort(np.concatenate(part)) for part in zip(*parts, strict=True))
    return learn, ask


def _parted(features: FloatArray, places: I8, share: float) -> tuple[I8, I8]:
    """Keep back the last share of one class; learning ends before it, where neighbours differ most.

    So frames of one vehicle do not come to lie on both sides.
    """
    last = max(1, len(places) - round(len(places) * share))
    first = max((last + 1) // 2, last - round(NEAR * len(places) ** 0.5))
    if last == len(places):
        return places, places[:0]
    steps = np.linalg.norm(np.diff(features[places[first - 1 : last + 1]], axis=0), axis=1)
    return places[: first + int(np.argmax(steps))], places[last:]
