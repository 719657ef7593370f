"""What every student is: a trunk to K features, and a head from features to logits."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from edge_protocol.task import FEATURES


class Student(nn.Module):
    """A trunk and a head.

    Args:
        trunk: (N, *input shape) float32 → (N, 64) float32.
        outputs: width of the logits.
    """

    def __init__(self, trunk: nn.Module, outputs: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(FEATURES, outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (N, 64) and logits (N, outputs), float32, for x (N, *input shape) float32."""
        features: Tensor = self.trunk(x)
        return features, self.head(features)


class Residual(nn.Module):
    """x + body(x), or shortcut(x) + body(x) where the shape changes."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Add the body's answer to x."""
        kept: Tensor = x if self.shortcut is None else self.shortcut(x)
        return kept + torch.as_tensor(self.body(x))


class Features(nn.Sequential):
    """Last step of a trunk: (N, width) → (N, 64); smooth, so that no feature dies and density can be measured."""

    def __init__(self, width: int) -> None:
        super().__init__(OrderedDict(project=nn.Linear(width, FEATURES), smooth=nn.SiLU()))


def conv(ins: int, outs: int, *, kernel: int = 3, stride: int = 1, groups: int = 1, relu: bool = True) -> nn.Sequential:
    """Convolution and batch norm (which export folds into it), and ReLU unless told otherwise."""
    steps: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(ins, outs, kernel, stride, kernel // 2, groups=groups, bias=False), norm=nn.BatchNorm2d(outs)
    )
    if relu:
        steps["relu"] = nn.ReLU()
    return nn.Sequential(steps)


class Pool(nn.Module):
    """(N, C, H, W) → (N, C): the mean over the image."""

    def forward(self, x: Tensor) -> Tensor:
        """Average over the last two axes."""
        return x.mean(dim=(2, 3))
