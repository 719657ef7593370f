"""Batch norm folded into the layer before it, so that a deployed student is one set of plain weights; owns no file."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise
from typing import TypeVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from edge_protocol.errors import ExportError

M = TypeVar("M", bound=nn.Module)


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
