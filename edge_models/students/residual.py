"""Residual CNN for boards in the middle (ResNet; He et al. 2016)."""

from __future__ import annotations

from torch import nn

from edge_models.students.base import Features, Pool, Residual, conv
from edge_protocol.task import ImageInput

_WIDTHS = (16, 32, 64)


def trunk(spec: ImageInput) -> nn.Module:
    """(N, channels, H, W) → (N, 64); about 3 M multiply-adds at 32 x 32."""
    width = _WIDTHS[0]
    steps: list[nn.Module] = [conv(spec.channels, width, stride=2)]
    for outs in _WIDTHS:
        stride = 1 if outs == width else 2
        shortcut = None if outs == width else conv(width, outs, kernel=1, stride=stride, relu=False)
        body = nn.Sequential(conv(width, outs, stride=stride), conv(outs, outs, relu=False))
        steps += [Residual(body, shortcut), nn.ReLU()]
        width = outs
    return nn.Sequential(*steps, Pool(), Features(width))
