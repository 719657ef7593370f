"""Samples of a task to calibrate on and, apart from them, to judge on: from a pack, or simulated; owns no model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from devices.packs import ImagePack, SeriesPack
from devices.preprocess import Preprocess
from edge_client.labels import image_samples, open_commissioning
from edge_models.samples import F4, Samples
from edge_models.tasks import plugin_of
from edge_models.windows import cut_windows
from edge_protocol.errors import DataError
from edge_protocol.task import ImageInput, TaskSpec

SIMULATED = 600
CALIBRATED, JUDGED = 256, 2000
"""Samples taken at most."""
_EARLIER = 0.7
"""Share of a series, or of a pack that names no test images, to calibrate on."""


def samples_for(spec: TaskSpec, path: Path | None) -> tuple[F4, tuple[F4, Samples]]:
    """Get samples as the student takes them, to calibrate on; and others, with their targets, to judge on.

    A pack's own split is kept; without one, and for series, what comes first is calibrated on.

    Args:
        spec: the task.
        path: of a pack, or None: simulated.

    Raises:
        DataError: the pack cannot be read, is of another kind, or one of the two has no labelled sample.
    """
    if path is None:
        drawn = plugin_of(spec).simulate(spec, np.random.default_rng(0), SIMULATED)
        first, rest = _cut(drawn, int(_EARLIER * len(drawn)))
    else:
        pack = open_commissioning(str(path), spec)
        first, rest = _images(pack, spec) if isinstance(pack, ImagePack) else _series(pack, spec)
    if not len(first) or not len(rest):
        raise DataError(f"{path}: {len(first)} samples to calibrate on and {len(rest)} to judge on: both need some")
    rng = np.random.default_rng(0)
    first, rest = (one.take(rng.permutation(len(one))[:most]) for one, most in ((first, CALIBRATED), (rest, JUDGED)))
    return _inputs(first, spec), (_inputs(rest, spec), rest)


def _images(pack: ImagePack, spec: TaskSpec) -> tuple[Samples, Samples]:
    assert isinstance(spec.input, ImageInput)
    preprocess = Preprocess(spec.input)
    found = []
    for split in (0, 1):
        kept = list(image_samples(pack.take(pack.split == split), spec, preprocess))
        raw = np.asarray([one.raw for one in kept], np.uint8).reshape(-1, *spec.input.raw_shape)
        found.append(Samples.of(raw, np.asarray([one.target for one in kept], np.int64)))
    train, test = found
    return (train, test) if len(test) else _cut(train, int(_EARLIER * len(train)))


def _series(pack: SeriesPack, spec: TaskSpec) -> tuple[Samples, Samples]:
    edge = int(_EARLIER * len(pack))
    first, rest = (
        cut_windows(part.values, part.time_s, spec) for part in (pack.rows(slice(edge)), pack.rows(slice(edge, None)))
    )
    return first.take(first.labelled), rest.take(rest.labelled)


def _cut(samples: Samples, edge: int) -> tuple[Samples, Samples]:
    return samples.take(slice(edge)), samples.take(slice(edge, None))


def _inputs(samples: Samples, spec: TaskSpec) -> F4:
    if isinstance(spec.input, ImageInput):
        return Preprocess(spec.input).batch(samples.raw.astype(np.uint8))
    return samples.raw.astype(np.float32)
