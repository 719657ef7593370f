"""Varies samples under an unchanged label, so that students learn more from few proxies (consistency training).

Owns the variations: cameras differ in light, colour, haze, focus and noise; sensors lose readings. What is said of the
plain sample holds for each variation of it (FixMatch's idea, Sohn et al. 2020). All vectorised: a batch costs a few
element-wise passes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from edge_protocol.task import ImageInput, SeriesInput

HAZE_LEVEL = 0.75
"""Brightness that haze tends to, in [0, 1]."""
LOST = 0.1
"""Share of the readings of a window that go missing."""
SHAKE = 0.05
"""Noise on the other readings, in units of the sensor's spread."""


def augment(x: Tensor, source: ImageInput | SeriesInput, generator: torch.Generator) -> Tensor:
    """Vary a batch as the task's input allows.

    Args:
        x: (N, *shape) float32 as the student takes it.
        source: the task's input.
        generator: of everything random, on the same device as x.
    """
    return vary_images(x, source, generator) if isinstance(source, ImageInput) else vary_windows(x, generator)


def vary_images(x: Tensor, source: ImageInput, generator: torch.Generator) -> Tensor:
    """Flip, shift, blur, re-light, re-colour, haze and noise, each sample differently.

    Args:
        x: (N, C, H, W) float32, normalised.
        source: says the normalisation, so that light acts on brightness in [0, 1].
        generator: of everything random.
    """
    n, channels = x.shape[:2]

    def uniform(low: float, high: float, width: int = 1) -> Tensor:
        return low + (high - low) * torch.rand(n, width, 1, 1, generator=generator, device=x.device)

    mean = torch.tensor(source.mean, device=x.device).view(1, -1, 1, 1)
    std = torch.tensor(source.std, device=x.device).view(1, -1, 1, 1)
    x = torch.where(uniform(0, 1) < 0.5, x.flip(3), x)  # noqa: PLR2004 — half of them
    x = _shift(x, 3, generator)
    soft = functional.interpolate(functional.avg_pool2d(x, 2), size=x.shape[2:], mode="bilinear", align_corners=False)
    x = x + uniform(-0.5, 1.0).clamp_min(0) * (soft - x)
    light = x * std + mean
    light = light * torch.exp(uniform(-1.2, 0.4)) * torch.exp(uniform(-0.15, 0.15, channels))
    haze = uniform(-0.6, 0.6).clamp_min(0)
    light = (light + haze * (HAZE_LEVEL - light)).clamp(0, 1)
    noise = torch.randn(x.shape, generator=generator, device=x.device) * uniform(-0.04, 0.04).clamp_min(0)
    return (light + noise - mean) / std


def vary_windows(x: Tensor, generator: torch.Generator) -> Tensor:
    """Lose readings and shake the others a little; the newest reading stays, for forecasts are changes against it.

    Args:
        x: (N, steps, 4) float32: value, measured flag, sin and cos of the time of day.
        generator: of everything random.
    """
    value, measured, clock = x[..., :1], x[..., 1:2], x[..., 2:]
    newest = x.shape[1] - 1 - measured.flip(1).argmax(1, keepdim=True)
    kept = (torch.rand(measured.shape, generator=generator, device=x.device) > LOST).float().scatter_(
        1, newest, 1.0
    ) * measured
    noise = (SHAKE * torch.randn(value.shape, generator=generator, device=x.device)).scatter_(1, newest, 0.0)
    return torch.cat([(value + noise) * kept, kept, clock], dim=2)


def _shift(x: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Move each image by up to `most` pixels, the border repeated."""
    n, channels, height, width = x.shape
    dy, dx = torch.randint(-most, most + 1, (2, n, 1), generator=generator, device=x.device)
    rows = (torch.arange(height, device=x.device) + dy).clamp(0, height - 1)
    columns = (torch.arange(width, device=x.device) + dx).clamp(0, width - 1)
    x = x.gather(2, rows[:, None, :, None].expand(n, channels, height, width))
    return x.gather(3, columns[:, None, None, :].expand(n, channels, height, width))
