"""Patch mixer for the largest boards (MLP-Mixer; Tolstikhin et al. 2021) on a convolutional stem (Xiao et al. 2021)."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from edge_models.students.base import Features, Residual, conv
from edge_protocol.task import ImageInput

_WIDTH = 64
_BLOCKS = 2
_PATCH = 4
"""Pixels that become one token, in each direction."""


class Mixer(nn.Module):
    """Tokens from patches; in each block an MLP over the tokens and one over the channels.

    Linear maps are written as convolutions of kernel 1, so that the exported graph keeps their weights' names.
    """

    def __init__(self, spec: ImageInput) -> None:
        super().__init__()
        tokens = (-(-spec.height // _PATCH)) * (-(-spec.width // _PATCH))
        self.stem = nn.Sequential(conv(spec.channels, 32, stride=2), conv(32, _WIDTH, stride=2))
        self.blocks = nn.ModuleList(_block(tokens) for _ in range(_BLOCKS))
        self.norm = nn.LayerNorm(_WIDTH)
        self.features = Features(_WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) → (N, 64); about 4.5 M multiply-adds at 32 x 32."""
        x = self.stem(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        features: Tensor = self.features(self.norm(x).mean(dim=1))
        return features


class _OverChannels(nn.Sequential):
    """Apply the steps with channels first: (N, tokens, C) → (N, tokens, C)."""

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = super().forward(x.transpose(1, 2))  # type: ignore[no-untyped-call]
        return mixed.transpose(1, 2)


def _block(tokens: int) -> nn.Module:
    over_tokens = nn.Sequential(OrderedDict(norm=nn.LayerNorm(_WIDTH), mlp=nn.Sequential(*_mlp(tokens, tokens))))
    over_channels = nn.Sequential(OrderedDict(norm=nn.LayerNorm(_WIDTH), mlp=_OverChannels(*_mlp(_WIDTH, 2 * _WIDTH))))
    return nn.Sequential(OrderedDict(tokens=Residual(over_tokens), channels=Residual(over_channels)))


def _mlp(width: int, hidden: int) -> tuple[nn.Module, ...]:
    return nn.Conv1d(width, hidden, 1), nn.ReLU(), nn.Conv1d(hidden, width, 1)


def trunk(spec: ImageInput) -> nn.Module:
    """(N, channels, H, W) → (N, 64)."""
    return Mixer(spec)
