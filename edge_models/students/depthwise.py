"""Depthwise-separable CNN for the smallest boards (MobileNet; Howard et al. 2017)."""

from __future__ import annotations

from torch import nn

from edge_models.students.base import Features, Pool, conv
from edge_protocol.task import ImageInput

_BLOCKS = ((32, 1), (64, 2), (64, 1), (96, 2), (96, 1))
"""Channels out and stride of each block."""


def trunk(spec: ImageInput) -> nn.Module:
    """(N, channels, H, W) → (N, 64); about 1 M multiply-adds at 32 x 32."""
    width = 16
    steps: list[nn.Module] = [conv(spec.channels, width, stride=2)]
    for outs, stride in _BLOCKS:
        steps += [conv(width, width, stride=stride, groups=width), conv(width, outs, kernel=1)]
        width = outs
    return nn.Sequential(*steps, Pool(), Features(width))
