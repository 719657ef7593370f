"""A frame's whole way on a device as steps to be timed: from a camera to a message that is handed over; owns no figure.

Each picture is one sample: looking for moving objects in it, as `serving: moving-objects` does, is not in the way. A
device sends one result per interval; here every query sends one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import inf, isfinite, nan
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from devices.latency.load import Step
from devices.latency.result import STAGES
from devices.opencv import opencv
from devices.preprocess import Preprocess
from devices.runners.base import Answer, Runner
from devices.runners.payload import read_payload
from devices.sources import check_address, open_source
from edge_models.head_weights import HeadWeights
from edge_protocol.errors import ConfigError, SourceError
from edge_protocol.messages import IntervalResult
from edge_protocol.task import ImageInput, SeriesInput, TaskSpec
from roadcast.bench.job import Job
from roadcast.bench.publishing import Publishing

INFERENCE_ONLY: Final = {
    stage: "inference alone was asked for: see --end-to-end and --source" for stage in STAGES if stage != "infer"
}
CAMERA = (432, 768)
"""Height and width of the pictures of a run without a source."""
_READ_S, _PAUSE_S, _PATIENCE_S = 0.2, 0.01, 30.0
U1 = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Way:
    """What a query goes through.

    Attributes:
        steps: names and functions.
        notes: what is to be known of a stage, or why it has no step.
        decoded: seconds of decoding by query, not a number where the source does not say; empty without a source.
        close: lets go of source and link.
    """

    steps: Sequence[tuple[str, Step]]
    notes: Mapping[str, str]
    decoded: Mapping[int, float] = field(default_factory=dict)
    close: Callable[[], None] = lambda: None

    @classmethod
    def inference(cls, step: Step) -> Way:
        """Inference alone."""
        return cls([("infer", step)], INFERENCE_ONLY)

    def beside(self, queries: int) -> dict[str, list[int]]:
        """Nanoseconds of what so many queries did beside the steps; nothing where that is not known of each."""
        times = [self.decoded.get(query, nan) for query in range(queries)]
        return {"decode": [round(time_s * 1e9) for time_s in times]} if times and all(map(isfinite, times)) else {}


class Capture:
    """Reads pictures as the agent reads them, as fast as the source gives them; a file begins again at its end.

    Attributes:
        shown: the source's address without secrets.
        decoded: seconds of decoding by query; not a number where the source does not say.
    """

    def __init__(self, uri: str) -> None:
        """Raises: ConfigError: the URI is wrong. DataError, SourceError: there is nothing to read there."""
        self.shown = check_address(uri)
        self.decoded: dict[int, float] = {}
        self._source = open_source(uri, name="bench", rate_hz=inf, loop=True)

    def __call__(self, query: int) -> U1:
        """The next good picture, (H, W, 3) uint8 RGB; faulty ones are passed over, and their time counts.

        Raises:
            ConfigError: the source gives readings.
            SourceError: it failed, or gave no good picture for half a minute.
        """
        until, fault = time.monotonic() + _PATIENCE_S, ""
        while not self._source.ended and time.monotonic() < until:
            frame = self._source.read(_READ_S)
            if frame is None:
                continue
            if frame.readings is not None:
                raise ConfigError(f"--source {self.shown}: gives readings, and this task takes pictures")
            if frame.fault is None and frame.image is not None:
                self.decoded[query] = nan if frame.decode_s is None else frame.decode_s
                return frame.image
            fault = f"; the last one was {frame.fault}"
            time.sleep(_PAUSE_S)
        raise SourceError(f"--source {self.shown}: gave no good picture for {_PATIENCE_S:g} s, or ended{fault}")

    def close(self) -> None:
        """Let go of the source."""
        self._source.close()


def whole_way(spec: TaskSpec, runner: Runner, weights: bytes, windows: Sequence[Any], raw: U1, job: Job) -> Way:
    """From a source, or simulated JPEGs or windows, to a message that a transport took.

    Args:
        spec: the task.
        runner: its student.
        weights: the payload, for the head.
        windows: a pool of inputs, (1, *input shape) float32; of a series they are where the way begins.
        raw: (N, height, width, 3) uint8, what cameras are simulated from.
        job: says source and transport.

    Raises:
        ConfigError: the source is wrong, or the task takes no pictures.
        DataError, SourceError: there is nothing to read.
        NotReadyError, StoreError, TransportError: as `Publishing` says.
    """
    if job.source and not isinstance(spec.input, ImageInput):
        raise ConfigError(f"--source: task {spec.name!r} takes windows of readings; only pictures are captured so far")
    with ExitStack() as opening:
        keys = [max(spec.labels, key=len)] if spec.labels else _keys(spec)
        publishing = Publishing(job.publish, _result(spec, dict.fromkeys(keys, 1.0)))
        opening.callback(publishing.close)
        capture = Capture(job.source) if job.source else None
        if capture is not None:
            opening.callback(capture.close)
        send: Step = lambda values: publishing.send(_result(spec, values))  # noqa: E731 - a step
        steps = [*_to_answer(spec, runner, windows, raw, capture, publishing.seen), ("head", _answer(spec, weights))]
        notes = _notes(spec, capture) | {
            "publish": f"one result a query, {publishing.says}; a device sends one every {spec.interval_s:g} s"
        }
        decoded = {} if capture is None else capture.decoded
        return Way([*steps, ("publish", send)], notes, decoded, opening.pop_all().close)


def _to_answer(
    spec: TaskSpec, runner: Runner, windows: Sequence[Any], raw: U1, capture: Capture | None, seen: deque[Any]
) -> list[tuple[str, Step]]:
    """The steps from the world to what the student gives."""

    def see(sample: Any) -> Any:  # noqa: ANN401 - (*raw_shape) uint8 or float32, as it came
        seen.append(sample)
        return sample

    if not isinstance(spec.input, ImageInput):
        return [("infer", lambda query: runner.infer(see(windows[query % len(windows)])))]
    preprocess = Preprocess(spec.input)
    return [
        ("decode", _simulated_camera(raw)) if capture is None else ("capture", capture),
        ("preprocess", lambda image: preprocess.batch(see(preprocess.raw(image))[None])),
        ("infer", runner.infer),
    ]


def _answer(spec: TaskSpec, weights: bytes) -> Step:
    """From what the student gives to the values of a result, by the head."""
    tensors, names = read_payload(weights), _keys(spec)
    weight, bias = (tensors[f"head.{part}"].astype(np.float32) for part in ("weight", "bias"))
    head = HeadWeights(weight, bias)

    def answer(given: Answer) -> dict[str, float]:
        logits = head.apply(given.features)[0]
        if spec.labels:
            return {names[int(logits.argmax())]: 1.0}
        return {name: float(value) for name, value in zip(names, logits, strict=False)}  # what follows are widths

    return answer


def _notes(spec: TaskSpec, capture: Capture | None) -> dict[str, str]:
    if not isinstance(spec.input, ImageInput):
        return dict.fromkeys(STAGES[:3], "windows of a sensor are simulated, ready for inference")
    if capture is None:
        return {
            "capture": "pictures are simulated: name a camera, clip or folder with --source",
            "decode": f"JPEGs of {CAMERA[1]} x {CAMERA[0]} in memory",
        }
    return {
        "capture": f"{capture.shown}, as fast as it gives pictures; a file begins again at its end",
        "decode": "as a folder or a clip says: within capture, or meanwhile in a process of its own, whose CPU time "
        "and memory are not counted; a camera or a pack does not say",
    }


def _result(spec: TaskSpec, values: dict[str, float]) -> IntervalResult:
    return IntervalResult(spec.name, "bench", 0.0, spec.interval_s, 1.0, values)


def _keys(spec: TaskSpec) -> Sequence[str]:
    """Keys of a result: classes, or a sensor's horizons as the agent names them."""
    if not isinstance(spec.input, SeriesInput):
        return spec.labels
    return [f"bench/+{horizon * spec.input.interval_s / 60:g}min" for horizon in spec.horizons]


def _simulated_camera(raw: U1) -> Step:
    cv2 = opencv()
    jpegs = [cv2.imencode(".jpg", cv2.resize(image, CAMERA[::-1]))[1] for image in raw]
    return lambda query: cv2.cvtColor(cv2.imdecode(jpegs[query % len(jpegs)], cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
