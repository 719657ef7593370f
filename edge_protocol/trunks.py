"""What a round asks of trunks, and how a device answers; owns the fields and their bounds, no arithmetic.

The change of a trunk is opaque bytes here (`edge_models.trunk_changes` reads them): what is wrong with it costs a
device its change, never its votes.
"""

from __future__ import annotations

from math import isfinite
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from edge_protocol.errors import LocalProtocolError
from edge_protocol.fields import Count, Sha256

MAX_STEPS: Final = 1000
MAX_BATCH: Final = 256
MAX_CHANGE_BYTES: Final = 256 * 1024
"""Largest change in bytes; the largest student that ships takes a third of it."""

Steps = Annotated[int, Meta(ge=1, le=MAX_STEPS)]
Batch = Annotated[int, Meta(ge=2, le=MAX_BATCH)]
Rate = Annotated[float, Meta(gt=0, le=1)]
Share = Annotated[float, Meta(gt=0, le=1)]


class TrunkAsk(msgspec.Struct, frozen=True, array_like=True):
    """How a device that shares its trunk's change is to train it.

    Attributes:
        steps: of the optimiser; a device may take fewer.
        batch: samples in a step.
        learning_rate: of AdamW.
        norm: longest change, as a share of the trunk's own length; a device cuts its change to it.
    """

    steps: Steps
    batch: Batch
    learning_rate: Rate
    norm: Share

    def __post_init__(self) -> None:
        if not (isfinite(self.learning_rate) and isfinite(self.norm)):
            raise LocalProtocolError("not-finite", f"a trunk was asked for at rate {self.learning_rate}, {self.norm}")


class TrunkChange(msgspec.Struct, frozen=True, array_like=True):
    """How training on a device's own samples changed a release's trunk.

    Attributes:
        base: hash of the weights payload that training began at; it names release and tier.
        steps: of the optimiser that were taken.
        data: the change: safetensors of INT8 steps and half precision.
    """

    base: Sha256
    steps: Count
    data: Annotated[bytes, Meta(min_length=1, max_length=MAX_CHANGE_BYTES)]
