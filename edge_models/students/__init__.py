"""Students: the shared model's architectures, one file each. Needs torch, so a device that serves never loads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from edge_models.students import depthwise, gru, mixer, mlp, residual, tcn
from edge_models.students.base import Student
from edge_protocol.errors import ConfigError
from edge_protocol.task import ImageInput, SeriesInput, TaskSpec, Tier

__all__ = ["Student", "build_student"]

_TRUNKS: dict[str, tuple[type[ImageInput | SeriesInput], Callable[[Any], nn.Module]]] = {
    "depthwise": (ImageInput, depthwise.trunk),
    "residual": (ImageInput, residual.trunk),
    "mixer": (ImageInput, mixer.trunk),
    "mlp": (SeriesInput, mlp.trunk),
    "gru": (SeriesInput, gru.trunk),
    "tcn": (SeriesInput, tcn.trunk),
}


def build_student(spec: TaskSpec, tier: Tier, seed: int = 0) -> Student:
    """Make a task's student of a tier with fresh weights; the same seed gives the same weights.

    Raises:
        ConfigError: the task names a student that does not exist or takes another kind of input.
    """
    name = spec.students[tier]
    fitting = [known for known, (kind, _) in _TRUNKS.items() if isinstance(spec.input, kind)]
    if name not in fitting:
        raise ConfigError(
            f"task {spec.name!r}, tier {tier!r}: no student {name!r} for its input; there are {', '.join(fitting)}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Student(_TRUNKS[name][1](spec.input), spec.outputs)
