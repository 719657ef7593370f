"""Batch norm folded into the layer before it, so that a deployed student is one set of plain weights; owns no file."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from edge_protocol.errors import ExportError

M = TypeVar("M", bound=nn.Module)
LEAST_GAIN = 1e-3
"""A batch norm that multiplies a channel by less has as good as switched it off."""


def folded(model: M) -> M:
    """Return a copy in evaluation mode and without any batch norm, which answers the same.

    Raises:
        ExportError: a batch norm does not follow a convolution or a linear layer in an `nn.Sequential`.
    """
    copy = deepcopy(model).eval()
    for steps in [module for module in copy.modules() if isinstance(module, nn.Sequential)]:
        for (name, layer), (norm_name, norm) in pairwise(list(steps.named_children())):
            if isinstance(norm, _BatchNorm) and isinstance(layer, _ConvNd):
                steps.register_module(name, fuse_conv_bn_eval(layer, norm))
            elif isinstance(norm, _BatchNorm) and isinstance(layer, nn.Linear):
                steps.register_module(name, fuse_linear_bn_eval(layer, norm))
            else:
                continue
            steps.register_module(norm_name, nn.Identity())
    left = [name for name, module in copy.named_modules() if isinstance(module, _BatchNorm)]
    if left:
        raise ExportError(
            f"batch norm {left[0]!r} cannot be folded: put it after a convolution or linear layer in an nn.Sequential"
        )
    return copy


@torch.no_grad()
def add_folded(model: nn.Module, change: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Change a model in place as its folded copy is to change: `folded` after it is what it was before, plus `change`.

    A weight before a batch norm moves by the change over the norm's gain, a bias moves the norm's own; a channel whose
    gain is next to nothing stays as it is.

    Args:
        model: with its batch norms.
        change: by name in the state dict of the folded copy; may name some of its tensors only.

    Raises:
        ExportError: a name or shape that the folded copy does not have.
    """
    state, gains = model.state_dict(), _gains(model)
    for name, value in change.items():
        layer, _, part = name.rpartition(".")
        norm, gain = gains.get(layer, ("", None))
        target = state.get(f"{norm}.bias" if norm and part == "bias" else name)
        if target is None or target.shape != value.shape:
            raise ExportError(f"folded, this model has no {name!r} of shape {value.shape}; was it another tier's?")
        added = torch.tensor(value, device=target.device)
        if gain is not None and part == "weight":
            shown = gain.reshape(-1, *[1] * (added.dim() - 1))
            added = torch.where(shown.abs() > LEAST_GAIN, added / shown, 0.0)
        target.add_(added)


def _gains(model: nn.Module) -> dict[str, tuple[str, Tensor]]:
    """Of each layer before a batch norm: the norm's name, and by how much it multiplies each channel."""
    found = {}
    for place, steps in model.named_modules():
        pairs = pairwise(steps.named_children()) if isinstance(steps, nn.Sequential) else ()
        for (name, layer), (norm_name, norm) in pairs:
            if isinstance(norm, _BatchNorm) and isinstance(layer, _ConvNd | nn.Linear):
                assert norm.running_var is not None
                gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
                at = f"{place}." if place else ""
                found[at + name] = (at + norm_name, gain)
    return found
