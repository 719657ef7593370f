"""Fits a device's own forecast head on the shared trunk's features; owns loss and schedule, no trunk and no choice.

The shared forecast stays in the sum and the head's last layer starts at 0, so training begins at the shared model and
departs from it where the device's own sensors ask for it. Who a sensor is decides much of a forecast (STID; Shao et
al. 2022), and only its device knows it.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional

from edge_models.forecast_heads import F4, ForecastHead
from edge_models.losses import gaussian_nll
from edge_models.schedules import one_cycle
from edge_protocol.errors import DataError

MAX_GRADIENT = 5.0


class ForecastFitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a forecast head is fitted.

    Attributes:
        steps: of AdamW (Loshchilov and Hutter 2019), each on `batch` windows drawn with replacement.
        batch: windows a step.
        hidden: width of the hidden layer.
        learning_rate: at its height: it rises for a fifth of the steps and falls to 0 along a cosine.
        weight_decay: pull to 0, which for the last layer is the shared forecast.
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


def fit_forecast_head(
    features: F4, side: F4, shared: F4, targets: F4, settings: ForecastFitSettings | None = None
) -> ForecastHead:
    """Fit a head; the same arguments give the same head on the same machine.

    Args:
        features: (N, K) float32 of the shared trunk.
        side: (N, F) float32, the device's own inputs.
        shared: (N, 2H) float32, what the shared model forecasts: means, then log-spreads.
        targets: (N, H) float32 changes in units of spread, NaN where nothing was measured; such never count.
        settings: how.

    Returns:
        The head; one that answers as the shared model when no target was measured.

    Raises:
        DataError: lengths differ, or inputs hold NaN or infinity.
    """
    settings = settings or ForecastFitSettings()
    inputs, base, truth = _measured(features, side, shared, targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        first = nn.Linear(inputs.shape[1], settings.hidden)
    second = nn.Linear(settings.hidden, base.shape[1])
    weights = [*first.parameters(), *second.parameters()]
    with torch.no_grad():
        for zero in second.parameters():
            zero.zero_()
    means = [weight.detach().clone() for weight in weights]
    if not len(inputs):
        return ForecastHead(*(mean.numpy() for mean in means))
    centre, spread = inputs.mean(0), inputs.std(0) + 1e-2
    unit = torch.from_numpy((inputs - centre) / spread)
    _descend(first, second, means, (unit, torch.from_numpy(base), torch.from_numpy(truth)), settings)
    folded = means[0].numpy() / spread
    return ForecastHead(folded, means[1].numpy() - folded @ centre, means[2].numpy(), means[3].numpy())


def _descend(
    first: nn.Linear,
    second: nn.Linear,
    means: list[Tensor],
    data: tuple[Tensor, Tensor, Tensor],
    settings: ForecastFitSettings,
) -> None:
    """Train both layers in place; `means` follows the weights (Polyak and Juditsky 1992), faster early on."""
    inputs, base, truth = data
    weights = [*first.parameters(), *second.parameters()]
    optimiser = torch.optim.AdamW(weights, weight_decay=settings.weight_decay)
    generator = torch.Generator().manual_seed(settings.seed)
    for step in range(settings.steps):
        optimiser.param_groups[0]["lr"] = settings.learning_rate * one_cycle(step / settings.steps)
        pick = torch.randint(len(inputs), (settings.batch,), generator=generator)
        loss = gaussian_nll(base[pick] + second(functional.silu(first(inputs[pick]))), truth[pick])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, MAX_GRADIENT)
        optimiser.step()
        kept = min(settings.average, (step + 1) / (step + 11))
        with torch.no_grad():
            for mean, weight in zip(means, weights, strict=True):
                mean.lerp_(weight, 1 - kept)


def _measured(features: F4, side: F4, shared: F4, targets: F4) -> tuple[F4, F4, F4]:
    """Inputs, shared forecasts and targets of the windows with any measured target."""
    lengths = {len(features), len(side), len(shared), len(targets)}
    if len(lengths) > 1 or shared.shape[1] != 2 * targets.shape[1]:
        raise DataError(
            f"features {features.shape}, side {side.shape}, shared {shared.shape} and targets {targets.shape} "
            "do not belong together"
        )
    kept = ~np.isnan(targets).all(axis=1)
    inputs = np.hstack([features, side]).astype(np.float32)[kept]
    base, truth = shared[kept].astype(np.float32), targets[kept].astype(np.float32)
    if not (np.isfinite(inputs).all() and np.isfinite(base).all() and not np.isinf(truth).any()):
        raise DataError("features, side inputs, shared forecasts or targets hold NaN or infinity; leave them out")
    return inputs, base, truth
