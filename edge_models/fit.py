"""Fits linear heads on a device: one that teaches others (report), one that serves the device (personal).

Owns loss, split and choice; owns no trunk, no sample store and no file. A head starts at the shared head and is pulled
back to it, so that a device with three examples loses nothing. Full-batch L-BFGS: a problem of some thousand samples by
64 features is solved in well under a second, the same way each time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from msgspec import Meta
from torch import Tensor
from torch.nn import functional

from edge_models.head_weights import FloatArray, HeadWeights
from edge_models.losses import gaussian_nll
from edge_models.tasks import plugin_of
from edge_protocol.errors import DataError
from edge_protocol.task import TaskSpec

Targets = npt.NDArray[np.int64] | FloatArray
Loss = Callable[[Tensor], Tensor]


class FitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How heads are fitted.

    Attributes:
        epochs: passes over all samples at most; the fit ends earlier when it has converged.
        anchor: pull towards the shared head, per weight squared (on features of unit spread).
        validation: share of the samples kept back to choose between personal and shared head.
        min_samples: with fewer labelled samples than this, the shared head stays.
        seed: of the split.
    """

    epochs: Annotated[int, Meta(ge=1, le=10_000)] = 60
    anchor: Annotated[float, Meta(ge=0)] = 1e-3
    validation: Annotated[float, Meta(gt=0, lt=1)] = 0.25
    min_samples: Annotated[int, Meta(ge=4)] = 16
    seed: int = 0


@dataclass(frozen=True, eq=False)
class PersonalFit:
    """What came of fitting a personal head.

    Attributes:
        head: the head to serve: personal or, when it won, the shared one.
        chosen: which of both it is.
        shared, personal: scores of both on the samples kept back; empty when there were too few to tell.
        n_train, n_valid: labelled samples fitted on and kept back.
    """

    head: HeadWeights
    chosen: Literal["shared", "personal"]
    shared: dict[str, float]
    personal: dict[str, float]
    n_train: int
    n_valid: int


def fit_report_head(
    features: FloatArray, targets: FloatArray, shared: HeadWeights, settings: FitSettings
) -> HeadWeights:
    """Fit the head that answers a round of a forecaster (a classifier's is `ratio_head`'s).

    Args:
        features: (N, K) float32 of the shared trunk.
        targets: (N, H) float32, NaN missing.
        shared: head of the release.
        settings: how.

    Returns:
        A head of K inputs; the shared head itself when nothing is labelled.

    Raises:
        DataError: features hold NaN or infinity, or their number differs from the targets'.
    """
    features, kept = _labelled(features, targets)
    if not len(features):
        return shared
    truth = torch.from_numpy(kept)
    return _fit(features, shared, settings, lambda outputs: gaussian_nll(outputs, truth))


def fit_personal_head(
    features: FloatArray,
    side: FloatArray,
    targets: Targets,
    shared: HeadWeights,
    spec: TaskSpec,
    settings: FitSettings,
    *,
    scale: FloatArray | None = None,
) -> PersonalFit:
    """Fit the head that serves this device, and keep the shared one when that is better on samples kept back.

    Forecasts keep back the last samples (pass them in order of time), classes a random share. The head that is
    returned was fitted on all samples; the choice and the scores come from the split.

    Args:
        features: (N, K) float32 of the shared trunk.
        side: (N, F) float32, the device's own inputs; F may be 0.
        targets: as for `fit_report_head`.
        shared: head of the release.
        spec: the task.
        settings: how.
        scale: (N, 2) float32, mean and spread of each sample's sensor, so that errors are in the task's unit.

    Raises:
        DataError: inputs hold NaN or infinity, or their lengths differ.
    """
    inputs = np.hstack([features, side]).astype(np.float32)
    scale = np.tile(np.array([0, 1], np.float32), (len(inputs), 1)) if scale is None else scale
    scale = scale[_measured(inputs, targets)]
    inputs, targets = _labelled(inputs, targets)
    if len(inputs) < settings.min_samples:
        return PersonalFit(shared, "shared", {}, {}, len(inputs), 0)
    wide = shared.widened(inputs.shape[1] - shared.features)
    train, valid = _split(len(inputs), spec, settings)
    trial = _fit(inputs[train], wide, settings, _personal_loss(targets[train], spec))
    plugin = plugin_of(spec)
    scores = {
        name: plugin.score(spec, _apply(head, inputs[valid]), targets[valid], scale[valid])
        for name, head in (("shared", wide), ("personal", trial))
    }
    gain = scores["personal"][plugin.headline] - scores["shared"][plugin.headline]
    if not (gain > 0 if plugin.higher_is_better else gain < 0):
        return PersonalFit(shared, "shared", scores["shared"], scores["personal"], len(train), len(valid))
    head = _fit(inputs, wide, settings, _personal_loss(targets, spec))
    return PersonalFit(head, "personal", scores["shared"], scores["personal"], len(train), len(valid))


def _fit(inputs: FloatArray, start: HeadWeights, settings: FitSettings, loss: Loss) -> HeadWeights:
    """Minimise loss(logits) + anchor · |head - start|² over linear heads on inputs of unit spread."""
    centre = inputs.mean(0)
    spread = inputs.std(0) + 1e-3 * float(inputs.std()) + 1e-6
    unit = torch.from_numpy(((inputs - centre) / spread).astype(np.float32))
    base = torch.from_numpy(_apply(start, inputs))
    weight = torch.zeros(start.outputs, inputs.shape[1], requires_grad=True)
    bias = torch.zeros(start.outputs, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [weight, bias], max_iter=settings.epochs, max_eval=settings.epochs * 5 // 4, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        pull = settings.anchor * (weight.square().sum() + bias.square().sum())
        value = loss(base + unit @ weight.T + bias) + pull
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    change = weight.detach().numpy() / spread
    offset = bias.detach().numpy() - change @ centre
    return HeadWeights(
        (start.weight + change).astype(np.float32), (start.bias + offset).astype(np.float32), start.features
    )


def _personal_loss(targets: Targets, spec: TaskSpec) -> Loss:
    truth = torch.from_numpy(targets)
    if spec.kind == "forecast":
        return lambda logits: gaussian_nll(logits, truth)
    return lambda logits: functional.cross_entropy(logits, truth)


def _apply(head: HeadWeights, inputs: FloatArray) -> FloatArray:
    return head.apply(inputs[:, : head.features], inputs[:, head.features :])


def _measured(inputs: FloatArray, targets: Targets) -> npt.NDArray[np.bool_]:
    if len(inputs) != len(targets):
        raise DataError(f"{len(inputs)} samples came with {len(targets)} targets; both must belong together")
    if not np.isfinite(inputs).all():
        raise DataError("features or side inputs hold NaN or infinity; leave such samples out before fitting")
    return np.asarray(targets >= 0 if targets.ndim == 1 else ~np.isnan(targets).all(1))


def _labelled(inputs: FloatArray, targets: Targets) -> tuple[FloatArray, Targets]:
    kept = _measured(inputs, targets)
    return inputs[kept], targets[kept]


def _split(n: int, spec: TaskSpec, settings: FitSettings) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    order = np.arange(n)
    if spec.kind == "classify":
        order = np.random.default_rng(settings.seed).permutation(n)
    cut = n - max(1, round(n * settings.validation))
    return np.sort(order[:cut]), np.sort(order[cut:])
