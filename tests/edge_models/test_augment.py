"""Variations under an unchanged label."""

from __future__ import annotations

import numpy as np
import torch

from broker_server.distiller import inputs_of
from edge_models.augment import augment, vary_windows
from edge_models.samples import Samples
from edge_models.tasks import load_task, plugin_of

VEHICLE, SPEED = load_task("vehicle"), load_task("speed")


def generator(seed: int = 0) -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(seed)


def test_images_keep_shape_and_range_and_differ() -> None:
    """Every variation is a finite image of the same shape, near the range of real ones, and no two are the same."""
    image = plugin_of(VEHICLE).simulate(VEHICLE, np.random.default_rng(0), 1)
    x = inputs_of(Samples.concat([image] * 8), VEHICLE)
    varied = augment(x, VEHICLE.input, generator())
    assert varied.shape == x.shape
    assert varied.isfinite().all()
    darkest, brightest = inputs_of(
        Samples.of(np.repeat([[[[0] * 3]], [[[255] * 3]]], 32, 1).repeat(32, 2).astype(np.uint8)), VEHICLE
    )
    assert (varied >= darkest.min() - 1.5).all()
    assert (varied <= brightest.max() + 1.5).all()
    assert len({row.numpy().tobytes() for row in varied}) == 8


def test_the_same_seed_varies_the_same_way() -> None:
    """Distillation is reproducible because its variations are."""
    x = torch.rand(4, 3, 32, 32, generator=generator(1))
    first, again, other = (augment(x, VEHICLE.input, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_windows_keep_the_reading_that_forecasts_are_measured_against() -> None:
    """The newest measured reading is neither lost nor moved, also when the last steps were missing."""
    x = torch.ones(200, 12, 4)
    x[100:, 9:, :2] = 0
    varied = vary_windows(x, generator())
    assert (varied[:100, -1, :2] == 1).all()
    assert (varied[100:, 8, :2] == 1).all()
    assert (varied[100:, 9:, :2] == 0).all()


def test_windows_lose_some_readings_and_keep_the_clock() -> None:
    """A lost reading has flag 0 and value 0; the time of day stays."""
    x = torch.ones(300, 12, 4)
    varied = augment(x, SPEED.input, generator())
    lost = varied[..., 1] == 0
    assert 0.05 < lost.float().mean() < 0.15
    assert (varied[..., 0][lost] == 0).all()
    assert torch.equal(varied[..., 2:], x[..., 2:])
