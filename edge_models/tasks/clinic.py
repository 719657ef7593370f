"""Plug-in of the clinic task: images as any classifier's, and the patient's own readings for the personal head.

The readings never reach the shared trunk and a personal head stays on its device, so they stay there too.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

import numpy as np

from edge_models.kinds import classify
from edge_models.kinds.classify import headline, higher_is_better, score
from edge_models.samples import F4, Samples
from edge_protocol.errors import DataError
from edge_protocol.task import TaskSpec

__all__ = ["headline", "higher_is_better", "score", "side", "simulate"]

_READINGS = {"age": (50.0, 20.0), "temperature": (37.0, 0.7), "pulse": (75.0, 15.0)}
"""Usual value and spread: years, °C, beats per minute."""


def side(record: Mapping[str, str]) -> F4:
    """Return (6,) float32: each reading in units of its usual spread and 1, or 0 and 0 when it was not measured.

    Raises:
        DataError: a reading is not a number; it is named and not shown, for errors go into the journal.
    """
    found: list[float] = []
    for name, (usual, spread) in _READINGS.items():
        text = record.get(name, "").strip()
        found += [(_number(name, text) - usual) / spread, 1.0] if text else [0.0, 0.0]
    return np.array(found, np.float32)


def simulate(spec: TaskSpec, rng: np.random.Generator, n: int) -> Samples:
    """Draw n labelled samples: fever moves a patient one class up, which no image shows."""
    images = classify.simulate(spec, rng, n)
    temperature = rng.normal(37.2, 0.8, n)
    fever = temperature > 38  # noqa: PLR2004
    targets = np.minimum(images.targets.astype(np.int64) + fever, len(spec.labels) - 1)
    records = ({"temperature": f"{value:.1f}"} for value in temperature)
    return Samples.of(images.raw, targets, side=np.stack([side(record) for record in records]))


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise DataError(f"clinic reading {name!r} is not a number; write one, or leave it empty when not measured")
    return value
