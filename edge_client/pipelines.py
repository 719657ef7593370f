"""From a frame to an answer, as the task says: whole sample, moving objects, or series; owns no thread, no source."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from devices.preprocess import Preprocess
from devices.runners.base import Runner
from devices.sources import Frame
from edge_client.moving_objects import MovingObjects, MovingObjectsConfig
from edge_client.replay import Kept
from edge_client.results import Tally
from edge_client.seen import Seen
from edge_client.side_inputs import SideInputs
from edge_models.head_weights import HeadWeights
from edge_models.samples import F4, UNLABELLED, Samples
from edge_models.windows import LiveWindows, last_measured
from edge_protocol.task import SeriesInput, TaskSpec

LOG = logging.getLogger(__name__)
U1 = npt.NDArray[np.uint8]
MAX_KEY = 64
"""Longest key of a result on the wire."""


class Bundle:
    """What answers frames: it is replaced as a whole, so that a frame never meets halves of two releases.

    Attributes:
        release: counter of the release.
        runner: its student.
        head: the personal head; None for the shared one inside the student.
    """

    __slots__ = ("_plain", "head", "release", "runner")

    def __init__(self, release: int, runner: Runner, head: HeadWeights | None = None) -> None:
        self.release, self.runner, self.head = release, runner, head
        self._plain = (
            None if head is None or head.side or head.hidden else (np.ascontiguousarray(head.weight.T), head.bias)
        )

    def answer(self, x: F4, side: F4 | None = None) -> tuple[F4, F4]:
        """Answer x (N, *input shape) float32; `side` is (F,), the same for all.

        Returns:
            (N, outputs) float32 of the head that serves, and what the shared head says, which no refit changes.
        """
        answer = self.runner.infer(x)
        if self.head is None:
            return answer.logits, answer.logits
        if self._plain is not None:
            weight, bias = self._plain
            logits: F4 = answer.features.dot(weight)
            logits += bias
            return logits, answer.logits
        row = np.zeros(self.head.side, np.float32) if side is None else side
        return self.head.apply(answer.features, np.broadcast_to(row, (len(x), len(row)))), answer.logits

    def forecast(self, windows: Samples) -> tuple[F4, F4]:
        """Answer N windows, each with its sensor's number and scale, as `answer` does."""
        x = windows.raw.astype(np.float32, copy=False)
        if self.head is None or self.head.habits is None:
            return self.answer(x)
        answer = self.runner.infer(x)
        return self.head.answer(answer.features, windows), answer.logits


class Pipeline(Protocol):
    """Turns frames of one source into answers."""

    def step(self, frame: Frame, bundle: Bundle | None, now: float) -> bool:
        """Take one good frame at `now` (s); return whether it was answered. Without a bundle it is only remembered."""
        ...


class WholeSample:
    """Each image is one sample."""

    def __init__(self, spec: TaskSpec, preprocess: Preprocess, tally: Tally, seen: Seen) -> None:
        self._labels, self._preprocess, self._tally, self._seen = spec.labels, preprocess, tally, seen
        self._side, self._strange = SideInputs(spec), set[str]()

    def step(self, frame: Frame, bundle: Bundle | None, now: float) -> bool:
        """Classify the image."""
        assert frame.image is not None
        raw, side = self._preprocess.raw(frame.image), self._side.of(frame)
        self._seen.see(Kept(frame.sample, frame.at_s, raw, self._target(frame.label), side), now)
        if bundle is None:
            return False
        logits, shared = bundle.answer(self._preprocess.batch(raw[None]), side)
        condition = frame.condition or self._tally.source
        if self._seen.doubts.due(frame.at_s, condition):
            self._seen.doubts.see(frame.at_s, condition, _doubt(shared))
        self._tally.count(self._labels[int(logits.argmax())])
        return True

    def _target(self, label: str | None) -> int:
        if label in self._labels:
            return self._labels.index(label)
        if label is not None and label not in self._strange:
            self._strange.add(label)
            LOG.warning("%s: its frames of %r have no label here; labels: %s", self._tally.source, label, self._labels)
        return UNLABELLED


class Objects:
    """Moving objects are found, followed, classified by votes, and counted at lines."""

    def __init__(
        self, spec: TaskSpec, preprocess: Preprocess, config: MovingObjectsConfig, tally: Tally, seen: Seen
    ) -> None:
        self._preprocess, self._tally, self._seen = preprocess, tally, seen
        self._objects = MovingObjects(config, self._classify, spec.labels)
        self._outputs, self._side = spec.outputs, SideInputs(spec)
        self._bundle: Bundle | None = None
        self._frame: Frame | None = None
        self._now = 0.0

    def step(self, frame: Frame, bundle: Bundle | None, now: float) -> bool:
        """Follow what moves, and count what crosses a line."""
        assert frame.image is not None
        self._bundle, self._frame, self._now = bundle, frame, now
        for crossing in self._objects.frame(frame.image, frame.at_s):
            if bundle is not None:
                self._tally.count(f"{crossing.line}/{crossing.direction}/{crossing.label}"[:MAX_KEY])
        return bundle is not None

    def _classify(self, crops: Sequence[U1]) -> F4:
        assert self._frame is not None
        raw, side = np.stack([self._preprocess.raw(crop) for crop in crops]), self._side.of(self._frame)
        for number, one in enumerate(raw):
            self._seen.see(Kept(f"{self._frame.sample}.{number}", self._frame.at_s, one, side=side), self._now)
        if self._bundle is None:
            return np.full((len(raw), self._outputs), 1 / self._outputs, np.float32)
        logits, shared = self._bundle.answer(self._preprocess.batch(raw), side)
        exps = np.exp(logits - logits.max(1, keepdims=True))
        probabilities: F4 = exps / exps.sum(1, keepdims=True)
        condition = self._frame.condition or self._tally.source
        if self._seen.doubts.due(self._frame.at_s, condition):
            self._seen.doubts.see(self._frame.at_s, condition, _doubt(shared))
        return probabilities


class Series:
    """Each row of readings ends a window per sensor, and tells what earlier windows should have been answered."""

    def __init__(
        self, spec: TaskSpec, windows: LiveWindows, sensors: Sequence[str], tally: Tally, seen: Seen, source: str
    ) -> None:
        self._windows, self._tally, self._seen, self._source = windows, tally, seen, source
        interval_s = spec.input.interval_s if isinstance(spec.input, SeriesInput) else 0.0
        self._horizons = len(spec.horizons)
        self._keys = [
            [f"{sensor[: MAX_KEY - 16]}/+{h * interval_s / 60:g}min" for h in spec.horizons] for sensor in sensors
        ]

    def step(self, frame: Frame, bundle: Bundle | None, now: float) -> bool:
        """Forecast each sensor that was measured within its window."""
        del now
        assert frame.readings is not None
        windows, matured = self._windows.push(frame.readings, frame.at_s)
        for number, (window, target, side, scale, end_s) in enumerate(matured):
            name = f"{self._source}-{int(frame.at_s)}-{number}"
            self._seen.keep(Kept(name, end_s, window, target, side, scale))
        known = np.flatnonzero(windows[:, :, 1].any(axis=1))
        if not len(known):
            return False
        self._seen.see_windows(windows[known])
        if bundle is None:
            return False
        asked = Samples.of(windows[known], side=self._windows.side[known], scale=self._windows.scale.pairs()[known])
        if matured:
            past, targets, sides, scales = (np.stack(column) for column in [*zip(*matured, strict=True)][:4])
            asked = Samples.concat([asked, Samples.of(past, side=sides, scale=scales)])
        logits, shared = bundle.forecast(asked)
        self._tell(known, windows[known], logits[: len(known)])
        if matured:
            error = np.abs(shared[len(known) :, : self._horizons] - targets)
            self._seen.doubts.see(frame.at_s, frame.condition or self._source, float(np.nanmean(error)))
        return True

    def _tell(self, sensors: npt.NDArray[np.intp], windows: F4, logits: F4) -> None:
        scale = self._windows.scale
        last = last_measured(windows)
        change = logits[:, : self._horizons]
        values = scale.mean[sensors, None] + scale.std[sensors, None] * (last[:, None] + change)
        for sensor, row in zip(sensors, values, strict=True):
            for key, value in zip(self._keys[sensor], row, strict=True):
                if np.isfinite(value):
                    self._tally.values[key] = float(value)


def _doubt(logits: F4) -> float:
    """Mean of 1 - confidence over (N, classes)."""
    return 1 - float((1 / np.exp(logits - logits.max(1, keepdims=True)).sum(1)).mean())
