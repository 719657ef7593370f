"""Cohorts of the validation samples, and how two students compare on each: what a mean over all samples hides.

Pure, and loads no torch. A classifier's cohorts are its classes and three grades of brightness; a forecaster's are its
sensors and the quarters of the day. Both students answer the same samples, so they are compared sample by sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from broker_server.distil_job import Paired
from devices.packs import ImagePack, SeriesPack
from edge_models.samples import F4, Samples
from edge_models.scales import Scale
from edge_protocol.task import TaskSpec

LEAST = 2
"""Samples below which nothing can be said about how sure a difference is."""
SHADES = ("dark", "middling", "bright")
DAY_QUARTERS = (0, 6, 12, 18, 24)
Mask = npt.NDArray[np.bool_]
F8 = npt.NDArray[np.float64]


def cohorts_of(samples: Samples, spec: TaskSpec, pack: ImagePack | SeriesPack) -> dict[str, Mask]:
    """Which samples belong to which cohort, (N,) bool by name: ``class/bus``, ``light/dark``, ``hours/00-06``.

    Args:
        samples: labelled.
        spec: the task.
        pack: the samples were read from it.
    """
    if isinstance(pack, SeriesPack):
        found = _sensors(samples, pack) | _hours(samples)
    else:
        found = {f"class/{name}": np.asarray(samples.targets == at) for at, name in enumerate(spec.labels)}
        found |= _shades(samples)
    return {name: mask for name, mask in found.items() if mask.sum() >= LEAST}


def compare(
    current: F4, candidate: F4, samples: Samples, spec: TaskSpec, cohorts: Mapping[str, Mask]
) -> dict[str, Paired]:
    """Compare two students on every cohort: by accuracy, or by mean absolute error in the task's unit.

    Args:
        current: logits, (N, outputs) float32.
        candidate: logits likewise.
        samples: what both answered, labelled.
        spec: the task.
        cohorts: of `cohorts_of`.
    """
    sign = 1.0 if spec.kind == "forecast" else -1.0
    before, after = (_scores(logits, samples, spec) for logits in (current, candidate))
    return {name: _paired(before[mask], after[mask], sign) for name, mask in cohorts.items()}


def _scores(logits: F4, samples: Samples, spec: TaskSpec) -> F8:
    """(N,) float64: 1 where the class is right; or the mean absolute error over the horizons that were measured."""
    if spec.kind == "classify":
        return np.asarray(logits.argmax(axis=1) == samples.targets, np.float64)
    truth = samples.targets.astype(np.float64)
    error = np.abs(logits[:, : truth.shape[1]] - truth) * samples.scale[:, 1:].astype(np.float64)
    return np.asarray(np.nanmean(error, axis=1))


def _paired(before: F8, after: F8, sign: float) -> Paired:
    loss = sign * (after - before)
    return Paired(
        samples=len(loss),
        current=float(before.mean()),
        candidate=float(after.mean()),
        loss=float(loss.mean()),
        doubt=_doubt(loss),
        spread=max(_doubt(before), _doubt(after)),
    )


def _doubt(values: F8) -> float:
    return max(_standard_error(values), _standard_error(_block_means(values)))


def _standard_error(values: F8) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) >= LEAST else 0.0


def _block_means(values: F8) -> F8:
    """Means of √N runs of neighbours: images of one vehicle, or windows that overlap, are not as many as they seem."""
    return np.array([block.mean() for block in np.array_split(values, int(np.sqrt(len(values))))])


def _shades(samples: Samples) -> dict[str, Mask]:
    """Thirds by mean brightness."""
    level = samples.raw.reshape(len(samples), -1).mean(axis=1)
    grade = np.digitize(level, np.quantile(level, [1 / 3, 2 / 3]))
    return {f"light/{name}": np.asarray(grade == at) for at, name in enumerate(SHADES)}


def _sensors(samples: Samples, pack: SeriesPack) -> dict[str, Mask]:
    """By sensor: a window knows its sensor by its level and spread alone."""
    known = np.nan_to_num(Scale.fit(pack.values).pairs())
    pairs, which = np.unique(samples.scale, axis=0, return_inverse=True)
    nearest = np.abs(pairs[:, None] - known[None]).sum(axis=2).argmin(axis=1)
    column = nearest[which.ravel()]
    return {f"sensor/{name}": np.asarray(column == at) for at, name in enumerate(pack.sensors)}


def _hours(samples: Samples) -> dict[str, Mask]:
    """By the hour at which a window ends, in the pack's own time: the last step holds it as a sine and a cosine."""
    sine, cosine = samples.raw[:, -1, 2], samples.raw[:, -1, 3]
    hour = np.arctan2(sine, cosine) / (2 * np.pi) * 24 % 24
    return {f"hours/{a:02}-{b:02}": np.asarray((hour >= a) & (hour < b)) for a, b in pairwise(DAY_QUARTERS)}
