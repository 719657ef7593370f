"""Fits each type of head on the shared trunk's features; owns losses and steps, no trunk and no choice (see `fit`).

All types start at the shared head and are pulled back to it, so that a device with three examples loses nothing:

- ``bias``: the biases alone, which is what a few samples can tell: how common each class is here.
- ``linear``: another linear map, by full-batch L-BFGS; some thousand samples are solved in well under a second.
- ``adapter``: a low-rank change of the features before the shared head (LoRA; Hu et al. 2022), by L-BFGS.
- ``mlp``: a hidden layer beside the shared head, by AdamW. Who a sensor is decides much of a forecast (STID; Shao et
  al. 2022), and only its device knows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional

from edge_models.head_weights import FloatArray, HeadType, HeadWeights, Hidden
from edge_models.losses import gaussian_nll
from edge_models.schedules import one_cycle

MAX_GRADIENT = 5.0
Targets = npt.NDArray[np.int64] | FloatArray
Tick = Callable[[], None]


class MlpSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a hidden layer is fitted.

    Attributes:
        steps: of AdamW (Loshchilov and Hutter 2019), each on `batch` samples drawn with replacement.
        batch: samples a step.
        hidden: width of the hidden layer.
        learning_rate: at its height: it rises for a fifth of the steps and falls to 0 along a cosine.
        weight_decay: pull to 0, which for the last layer is the shared head.
        average: share of the running mean of weights kept each step; the mean is what is returned.
        seed: of first layer and batches.
    """

    steps: Annotated[int, Meta(ge=1, le=100_000)] = 300
    batch: Annotated[int, Meta(ge=1, le=65_536)] = 128
    hidden: Annotated[int, Meta(ge=1, le=4096)] = 64
    learning_rate: Annotated[float, Meta(gt=0)] = 3e-3
    weight_decay: Annotated[float, Meta(ge=0)] = 1e-2
    average: Annotated[float, Meta(ge=0, lt=1)] = 0.99
    seed: int = 0


class FitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How heads are fitted and chosen.

    Attributes:
        heads: types to choose from; the first of equals wins.
        epochs: passes of L-BFGS over all samples at most; the fit ends earlier when it has converged.
        anchor: pull of a linear head towards the shared one, per weight squared (on features of unit spread).
        pull: the same on the factors of an adapter.
        bias_pull: the same on biases alone, beside the sum over the samples: a prior, which many samples outweigh.
        rank: of an adapter's change of the features.
        mlp: how a hidden layer is fitted.
        validation: share of the samples kept back to choose between personal and shared head.
        min_samples: with fewer labelled samples than this there is no choice: a classifier moves biases, or nothing.
        seed: of what is drawn.
    """

    heads: Annotated[tuple[HeadType, ...], Meta(min_length=1, max_length=4)] = ("bias", "linear")
    epochs: Annotated[int, Meta(ge=1, le=10_000)] = 60
    anchor: Annotated[float, Meta(ge=0)] = 1e-3
    pull: Annotated[float, Meta(ge=0)] = 1e-2
    bias_pull: Annotated[float, Meta(ge=0)] = 0.1
    rank: Annotated[int, Meta(ge=1, le=64)] = 4
    mlp: MlpSettings = MlpSettings()
    validation: Annotated[float, Meta(gt=0, lt=1)] = 0.25
    min_samples: Annotated[int, Meta(ge=4)] = 32
    seed: int = 0


def no_tick() -> None:
    """Count no step."""


def fit_bias(
    inputs: FloatArray, targets: Targets, start: HeadWeights, settings: FitSettings, tick: Tick = no_tick
) -> HeadWeights:
    """Fit the biases alone; arguments as `fit_linear`.

    For classes this corrects the shared head for the device's own prior (Saerens, Latinne and Decaestecker 2002), as
    far as the samples tell it; for forecasts it is what a mean is off and how sure it is.
    """
    bias = torch.zeros(start.outputs, requires_grad=True)
    data = inputs, targets, start
    _solve([bias], lambda base: base + bias, data, settings, settings.bias_pull / len(inputs), tick)
    return HeadWeights(start.weight, start.bias + np.asarray(bias.detach()), start.features)


def fit_linear(
    inputs: FloatArray, targets: Targets, start: HeadWeights, settings: FitSettings, tick: Tick = no_tick
) -> HeadWeights:
    """Fit a linear head: the loss plus anchor · |change|² on inputs of unit spread.

    Args:
        inputs: (N, K + F) float32, N ≥ 1, features and then the device's own inputs, all finite.
        targets: (N,) int64 classes; or (N, H) float32 changes in units of spread, NaN where nothing was measured.
        start: the shared head, widened to F side inputs.
        settings: how.
        tick: called after every step.
    """
    unit, centre, spread = _unit(inputs)
    weight = torch.zeros(start.outputs, inputs.shape[1], requires_grad=True)
    bias = torch.zeros(start.outputs, requires_grad=True)
    data = inputs, targets, start
    _solve([weight, bias], lambda base: base + unit @ weight.T + bias, data, settings, settings.anchor, tick)
    return _moved(start, np.asarray(weight.detach() / torch.from_numpy(spread)), np.asarray(bias.detach()), centre)


def fit_adapter(
    inputs: FloatArray, targets: Targets, start: HeadWeights, settings: FitSettings, tick: Tick = no_tick
) -> HeadWeights:
    """Fit a change of rank `settings.rank` of the features, and fold it into the head; arguments as `fit_linear`.

    The pull on both factors is one on the nuclear norm of their product (Srebro, Rennie and Jaakkola 2004).
    """
    unit, centre, spread = _unit(inputs)
    features = start.features
    head = torch.from_numpy(start.weight[:, :features] * spread[:features])
    generator = torch.Generator().manual_seed(settings.seed)
    down = torch.randn(settings.rank, inputs.shape[1], generator=generator) / inputs.shape[1] ** 0.5
    down.requires_grad_(requires_grad=True)
    up = torch.zeros(features, settings.rank, requires_grad=True)
    offset = torch.zeros(features, requires_grad=True)
    parts, data = [down, up, offset], (inputs, targets, start)
    _solve(parts, lambda base: base + (unit @ down.T @ up.T + offset) @ head.T, data, settings, settings.pull, tick)
    with torch.no_grad():
        change, bias = head @ up @ down / torch.from_numpy(spread), head @ offset
    return _moved(start, np.asarray(change), np.asarray(bias), centre)


def fit_mlp(
    inputs: FloatArray, targets: Targets, start: HeadWeights, settings: FitSettings, tick: Tick = no_tick
) -> HeadWeights:
    """Fit a hidden layer beside the shared head; arguments as `fit_linear`, and N may be 0.

    The shared logits stay in the sum and the last layer starts at 0. The same arguments give the same head on the same
    machine.
    """
    mlp = settings.mlp
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mlp.seed)
        first = nn.Linear(inputs.shape[1], mlp.hidden)
    second = nn.Linear(mlp.hidden, start.outputs)
    with torch.no_grad():
        for zero in second.parameters():
            zero.zero_()
    means = [weight.detach().clone() for weight in (*first.parameters(), *second.parameters())]
    centre, spread = np.zeros(inputs.shape[1], np.float32), np.ones(inputs.shape[1], np.float32)
    if len(inputs):
        centre, spread = inputs.mean(0), inputs.std(0) + 1e-2
        unit = torch.from_numpy((inputs - centre) / spread)
        base = torch.from_numpy(answers(start, inputs))
        _descend(first, second, means, (unit, base, torch.from_numpy(targets)), mlp, tick)
    inner, inner_bias, outer, outer_bias = (np.asarray(mean) for mean in means)
    folded = np.asarray(inner / spread, np.float32)
    hidden = Hidden(folded, np.asarray(inner_bias - folded @ centre, np.float32), outer)
    return HeadWeights(start.weight, start.bias + outer_bias, start.features, hidden)


Fit = Callable[[FloatArray, Targets, HeadWeights, FitSettings, Tick], HeadWeights]
FITS: Mapping[HeadType, Fit] = {"bias": fit_bias, "linear": fit_linear, "mlp": fit_mlp, "adapter": fit_adapter}


def answers(head: HeadWeights, inputs: FloatArray) -> FloatArray:
    """Logits (N, outputs) of inputs (N, K + F): features, then side inputs."""
    return head.apply(inputs[:, : head.features], inputs[:, head.features :])


def _solve(
    weights: list[Tensor],
    answer: Callable[[Tensor], Tensor],
    data: tuple[FloatArray, Targets, HeadWeights],
    settings: FitSettings,
    anchor: float,
    tick: Tick,
) -> None:
    """Minimise the loss of answer(shared logits) plus anchor · |weights|², in place."""
    inputs, targets, start = data
    base, truth, loss = torch.from_numpy(answers(start, inputs)), torch.from_numpy(targets), _loss(targets)
    optimiser = torch.optim.LBFGS(
        weights, max_iter=settings.epochs, max_eval=settings.epochs * 5 // 4, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        size = torch.stack([weight.square().sum() for weight in weights]).sum()
        value = loss(answer(base), truth) + anchor * size
        value.backward()  # type: ignore[no-untyped-call]
        tick()
        return value

    optimiser.step(closure)  # type: ignore[no-untyped-call]


def _descend(
    first: nn.Linear,
    second: nn.Linear,
    means: list[Tensor],
    data: tuple[Tensor, Tensor, Tensor],
    settings: MlpSettings,
    tick: Tick,
) -> None:
    """Train both layers in place; `means` follows the weights (Polyak and Juditsky 1992), faster early on."""
    inputs, base, truth = data
    loss_of = _loss(truth.numpy())
    weights = [*first.parameters(), *second.parameters()]
    optimiser = torch.optim.AdamW(weights, weight_decay=settings.weight_decay)
    generator = torch.Generator().manual_seed(settings.seed)
    for step in range(settings.steps):
        optimiser.param_groups[0]["lr"] = settings.learning_rate * one_cycle(step / settings.steps)
        pick = torch.randint(len(inputs), (settings.batch,), generator=generator)
        loss = loss_of(base[pick] + second(functional.silu(first(inputs[pick]))), truth[pick])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, MAX_GRADIENT)
        optimiser.step()
        kept = min(settings.average, (step + 1) / (step + 11))
        with torch.no_grad():
            for mean, weight in zip(means, weights, strict=True):
                mean.lerp_(weight, 1 - kept)
        tick()


def _loss(targets: Targets) -> Callable[[Tensor, Tensor], Tensor]:
    return functional.cross_entropy if targets.ndim == 1 else gaussian_nll


def _unit(inputs: FloatArray) -> tuple[Tensor, FloatArray, FloatArray]:
    centre = inputs.mean(0)
    spread = inputs.std(0) + 1e-3 * float(inputs.std()) + 1e-6
    return torch.from_numpy(((inputs - centre) / spread).astype(np.float32)), centre, spread


def _moved(start: HeadWeights, change: FloatArray, bias: FloatArray, centre: FloatArray) -> HeadWeights:
    """The head that a change of unit inputs makes of another."""
    weight, offset = start.weight + change, start.bias + bias - change @ centre
    return HeadWeights(weight.astype(np.float32), offset.astype(np.float32), start.features)
