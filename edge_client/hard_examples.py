"""Which samples the device is least sure of, so that an installer may name those first; owns no sample, only names.

A sample is hard when the answer that serves is unsure (margin sampling; Scheffer et al. 2001), or when the device's own
head and the shared one disagree (query by committee; Seung et al. 1992). The list stays on the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from edge_models.head_weights import HeadWeights
from edge_models.samples import F4, Samples
from edge_protocol.task import TaskSpec

LISTED = 64
"""Samples on the list at most."""
_LOG_SPREADS = (-5.0, 3.0)


class HardExample(msgspec.Struct, frozen=True, kw_only=True):
    """One sample of the replay store.

    Attributes:
        sample: its name there.
        labelled: whether somebody has named it already, or its truth has come.
        own, shared: class that each head says; "" for forecasts.
        unsure: 1 - margin between the two best classes, or forecast spread, in spreads of the sensor.
        apart: total variation between the heads' probabilities, or distance of their means, in spreads of the sensor.
    """

    sample: str
    labelled: bool
    own: str
    shared: str
    unsure: float
    apart: float


def hardest(
    names: Sequence[str],
    samples: Samples,
    features: F4,
    heads: tuple[HeadWeights, HeadWeights],
    spec: TaskSpec,
    count: int = LISTED,
) -> tuple[HardExample, ...]:
    """Rank samples by unsure + apart, the hardest first; of images those that nobody has labelled before others.

    Args:
        names: N names in the replay store.
        samples: the N samples.
        features: (N, K) float32.
        heads: the one that serves, and the shared one.
        spec: the task.
        count: how many to list.
    """
    own, shared = heads[0].answer(features, samples), heads[1].apply(features)
    classes = spec.kind == "classify"
    unsure, apart = (_classes if classes else _forecasts)(own, shared)
    order = np.lexsort((-(unsure + apart), samples.labelled & classes))[:count]
    best = [[spec.labels[at] if classes else "" for at in logits[order].argmax(axis=1)] for logits in (own, shared)]
    return tuple(
        HardExample(
            sample=names[at],
            labelled=bool(samples.labelled[at]),
            own=ours,
            shared=theirs,
            unsure=float(unsure[at]),
            apart=float(apart[at]),
        )
        for at, ours, theirs in zip(order, *best, strict=True)
    )


def _classes(own: F4, shared: F4) -> tuple[F4, F4]:
    p, q = (_softmax(logits) for logits in (own, shared))
    second, first = np.sort(p, axis=1)[:, -2:].T
    return 1 - (first - second), 0.5 * np.abs(p - q).sum(axis=1)


def _forecasts(own: F4, shared: F4) -> tuple[F4, F4]:
    (mean, log_spread), (theirs, _) = (np.split(outputs, 2, axis=1) for outputs in (own, shared))
    return np.exp(log_spread.clip(*_LOG_SPREADS)).mean(axis=1), np.abs(mean - theirs).mean(axis=1)


def _softmax(logits: F4) -> F4:
    exps = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exps / exps.sum(axis=1, keepdims=True), np.float32)
