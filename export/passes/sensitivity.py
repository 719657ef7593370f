"""Which layer a lower precision hurts most: each is lowered alone, and the logits are compared; owns no gate."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import numpy.typing as npt

from export.graph import OUTPUTS
from export.passes.base import Pass, checked
from export.passes.gates import answers, sqnr

F4 = npt.NDArray[np.float32]
HEAVY = frozenset({"Conv", "Gemm", "MatMul"})
"""Operators that hold weights; those between them are quantised with their neighbours."""


class Sensitivity(msgspec.Struct, frozen=True):
    """One layer.

    Attributes:
        layer: name of the node.
        weight: name of its weight.
        sqnr_db: of the logits when this layer alone is lowered; low is bad.
    """

    layer: str
    weight: str
    sqnr_db: float


def sensitivity(model: bytes, x: F4, alone: Callable[[str], Pass]) -> list[Sensitivity]:
    """Rank the layers of an FP32 file, the most sensitive first.

    Args:
        model: self-contained file.
        x: (N, *shape) float32; calibrated and compared on the same samples, which is fine for a ranking.
        alone: makes the pass that lowers the precision of the layer of this name, and of no other.
    """
    reference = answers(model, x)
    found = []
    for node in checked(model).graph.node:
        if node.op_type in HEAVY and OUTPUTS[1] not in node.output:
            lowered, _ = alone(node.name)(model)
            found.append(Sensitivity(node.name, node.input[1], sqnr(reference, answers(lowered, x))))
    return sorted(found, key=lambda one: one.sqnr_db)
