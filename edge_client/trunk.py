"""A release's trunk in a training job: raw samples in, features out; owns no store, no head."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from devices.closing import Closing
from devices.preprocess import Preprocess
from devices.runners.ort_runner import OrtRunner
from edge_client.jobs import TrainJob
from edge_models.samples import F4
from edge_protocol.errors import IncompatibleError
from edge_protocol.task import FEATURES, ImageInput

BATCH = 64
_REMEMBERS = re.compile(rb"Random(?:Normal|Uniform)|Bernoulli|Multinomial|Dropout|\bSampling")
"""Operators of ONNX Runtime that draw random numbers: each draw moves their generator on for whatever is asked next."""


class Trunk(Closing):
    """The trunk on this device, through the device's own preprocessing.

    With privacy nothing that a device says may depend on one of its samples beyond that sample's own features, whatever
    graph the release has: each own sample is asked alone, and one that the graph fails on has no finite features.

    Args:
        job: names the template, and says how samples are prepared and whether their features are private.
        weights: the release's.

    Raises:
        IncompatibleError: as `OrtRunner` says; or features are private and the graph keeps something from one inference
            to the next.
    """

    def __init__(self, job: TrainJob, weights: bytes) -> None:
        self.spec, self.seed, self._alone = job.spec, job.seed, job.sigma > 0
        template = Path(job.template).read_bytes()
        if self._alone and (found := _REMEMBERS.search(template)):
            raise IncompatibleError(
                f"student draws random numbers ({found[0].decode()}): one image could change what it says of the next,"
                " which 'privacy' promises it does not; export it without"
            )
        self._runner, self._prepare = OrtRunner(template, weights), preparation(job)

    def features(self, raw: npt.NDArray[np.generic]) -> F4:
        """Features (N, 64) float32 of the device's own samples; NaN where they are private and the graph fails."""
        if not self._alone:
            return self._run(raw, _as_it_is)
        return np.concatenate([np.zeros((0, FEATURES), np.float32), *(self._of_one(each[None]) for each in raw)])

    def views(self, raw: npt.NDArray[np.generic], count: int) -> F4:
        """Features (count, N, 64) float32: of the samples as they are, then of varied copies."""
        import torch  # noqa: PLC0415 - only this process loads it

        from edge_models.augment import augment  # noqa: PLC0415 - loads torch

        generator = torch.Generator().manual_seed(self.seed)

        def varied(x: F4) -> F4:
            return np.ascontiguousarray(augment(torch.from_numpy(x), self.spec.input, generator).numpy())

        return np.stack([self._run(raw, _as_it_is), *(self._run(raw, varied) for _ in range(count - 1))])

    def close(self) -> None:
        """Free the runtime's memory."""
        self._runner.close()

    def _run(self, raw: npt.NDArray[np.generic], vary: Callable[[F4], F4]) -> F4:
        batches = (raw[at : at + BATCH] for at in range(0, len(raw), BATCH))
        parts = [self._runner.infer(vary(self._prepare(batch))).features for batch in batches]
        return np.concatenate(parts) if parts else np.zeros((0, FEATURES), np.float32)

    def _of_one(self, raw: npt.NDArray[np.generic]) -> F4:
        """Features (1, 64) float32 of one sample (1, *raw_shape)."""
        with suppress(IncompatibleError):  # whatever it says: an error would tell that this image is there
            found = self._runner.infer(self._prepare(raw)).features
            if np.shape(found) == (1, FEATURES):
                return found
        return np.full((1, FEATURES), np.nan, np.float32)


def preparation(job: TrainJob) -> Callable[[npt.NDArray[Any]], F4]:
    """Stored samples to what the student takes: images are normalised, windows already are."""
    if isinstance(job.spec.input, ImageInput):
        return Preprocess(job.spec.input, job.preprocess).batch
    return lambda raw: np.ascontiguousarray(raw, np.float32)


def _as_it_is(x: F4) -> F4:
    return x
