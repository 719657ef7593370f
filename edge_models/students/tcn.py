"""Temporal convolutional network: causal, dilated, residual (Bai et al. 2018)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from edge_models.students.base import Features, Residual
from edge_protocol.task import SeriesInput

_WIDTH = 64
_KERNEL = 3


class Causal(nn.Module):
    """Convolution that sees only the past: (N, C, steps) → (N, width, steps)."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.past = (_KERNEL - 1) * dilation
        self.conv = nn.Conv1d(channels, _WIDTH, _KERNEL, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        """Pad on the left, convolve."""
        convolved: Tensor = self.conv(functional.pad(x, (self.past, 0)))
        return convolved


class Tcn(nn.Module):
    """Blocks of doubling dilation until the last step sees the whole window."""

    def __init__(self, spec: SeriesInput) -> None:
        super().__init__()
        steps, channels = spec.shape
        blocks: list[nn.Module] = [Causal(channels, 1)]
        seen, dilation = _KERNEL, 1
        while seen < steps or dilation == 1:
            body = nn.Sequential(nn.ReLU(), Causal(_WIDTH, dilation), nn.ReLU(), Causal(_WIDTH, dilation))
            blocks.append(Residual(body))
            seen, dilation = seen + 2 * (_KERNEL - 1) * dilation, 2 * dilation
        self.blocks = nn.Sequential(*blocks, nn.ReLU())
        self.features = Features(_WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """(N, steps, 4) → (N, 64)."""
        features: Tensor = self.features(self.blocks(x.transpose(1, 2))[:, :, -1])
        return features


def trunk(spec: SeriesInput) -> nn.Module:
    """(N, steps, 4) → (N, 64)."""
    return Tcn(spec)
