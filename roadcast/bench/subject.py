"""What ``roadcast bench run`` measures: an artifact's folder or an ONNX file, as the steps of a query."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from devices.latency.load import Step
from devices.latency.result import Subject
from devices.opencv import opencv
from devices.preprocess import Preprocess
from devices.runners.base import Answer, Runner
from devices.runners.onnx_file import OnnxFile, open_file
from devices.runners.ort_proof import providers_that_ran
from devices.runners.ort_providers import GpuRunner, Kind
from devices.runners.ort_runner import OrtRunner, open_student
from devices.runners.payload import read_payload
from edge_models.head_weights import HeadWeights
from edge_models.tasks import plugin_of
from edge_protocol.codec import encode
from edge_protocol.errors import ConfigError, DataError
from edge_protocol.messages import Header, IntervalResult
from edge_protocol.task import ImageInput, TaskSpec
from export.folder import GOLDEN, TEMPLATE, WEIGHTS, read_card, read_part
from export.golden import check_golden
from export.in_tensorrt import workshop_here

POOL = 32
"""Queries with different inputs that a run goes round and round."""
_GPU: dict[str, Kind] = {"ort-cuda": "cuda", "ort-tensorrt": "tensorrt"}
CAMERA = (432, 768)
"""Height and width of the frames of an end-to-end run."""


@dataclass(frozen=True, eq=False)
class Measurable:
    """A loaded model.

    Attributes:
        subject: what it is and what it runs on.
        steps: names and functions that a query goes through.
        close: frees it.
    """

    subject: Subject
    steps: Sequence[tuple[str, Step]]
    close: Callable[[], None]


def open_model(
    path: Path, *, batch: int, threads: int = 1, end_to_end: bool = False, runner: str = "ort"
) -> Measurable:
    """Load a model and prepare its queries.

    Args:
        path: a folder of ``roadcast export build``, or an ONNX file.
        batch: samples in a query.
        threads: that one inference may use.
        end_to_end: begin with a camera's JPEG, or a sensor's window, and end with an encoded message; a folder only.
        runner: ``ort``; for a folder also ``ort-cuda``, ``ort-tensorrt`` or ``trt``.

    Raises:
        ConfigError: `end_to_end` with an ONNX file or with more than one sample in a query, a GPU with such a file.
        DataError: no such file or folder.
        DeploymentError: a GPU answers otherwise than the exporter.
        IncompatibleError: the files do not fit each other, or the model does not take such a batch.
        NotReadyError: the folder is no artifact.
    """
    if end_to_end and (batch != 1 or not path.is_dir()):
        raise ConfigError("--end-to-end needs a folder of 'roadcast export build' and one sample in a query")
    if path.is_dir():
        return _student(path, batch, threads, end_to_end=end_to_end, runner=runner)
    if runner != "ort":
        raise ConfigError(f"--runner {runner} needs a folder of 'roadcast export build', whose golden answers judge it")
    try:
        model = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror}; name an ONNX file, or a folder that 'export build' wrote"
        ) from error
    return _file(path, model, batch, threads)


def _file(path: Path, model: bytes, batch: int, threads: int) -> Measurable:
    loaded = OnnxFile(model, threads=threads)
    rng = np.random.default_rng(0)
    pool = [loaded.inputs(batch, rng) for _ in range(POOL)]
    ran = providers_that_ran(lambda profile: open_file(model, threads=threads, profile=profile), pool[0])
    subject = _subject(path.name, model, b"", ran, "as in the file", threads)
    return Measurable(subject, [("infer", lambda query: loaded.infer(pool[query % POOL]))], loaded.close)


def _student(folder: Path, batch: int, threads: int, *, end_to_end: bool, runner: str) -> Measurable:
    card = read_card(folder)
    template, weights = read_part(folder, TEMPLATE), read_part(folder, WEIGHTS)
    pool = _queries(card.task, batch)
    loaded: Runner
    if runner == "trt":
        loaded = workshop_here().open(template, weights, read_part(folder, GOLDEN))
        ran = {loaded.provider: 1.0}
    elif runner in _GPU:
        loaded = GpuRunner(_GPU[runner], template, weights, shape=card.task.input.shape)
        check_golden(loaded, read_part(folder, GOLDEN))
        ran = loaded.shares
    else:
        loaded = OrtRunner(template, weights, threads=threads)
        ran = providers_that_ran(
            lambda profile: open_student(template, weights, threads=threads, profile=profile), {"input": pool[0]}
        )
    name = f"{card.task.name} {card.tier} {card.task.students[card.tier]}"
    subject = _subject(name, template, weights, ran, card.precision, threads, runner)
    steps: list[tuple[str, Step]] = [("infer", lambda query: loaded.infer(pool[query % POOL]))]
    if end_to_end:
        steps = _whole_way(card.task, loaded, weights, pool)
    return Measurable(subject, steps, loaded.close)


def _queries(spec: TaskSpec, batch: int) -> list[Any]:
    raw = _simulated(spec, POOL * batch)
    if isinstance(spec.input, ImageInput):
        raw = Preprocess(spec.input).batch(raw)
    return list(raw.astype(np.float32).reshape(POOL, batch, *spec.input.shape))


def _simulated(spec: TaskSpec, count: int) -> Any:  # noqa: ANN401 - uint8 images or float32 windows
    raw = plugin_of(spec).simulate(spec, np.random.default_rng(0), count).raw
    return np.resize(raw, (count, *spec.input.raw_shape))


def _whole_way(spec: TaskSpec, runner: Runner, weights: bytes, pool: Sequence[Any]) -> list[tuple[str, Step]]:
    tensors = read_payload(weights)
    weight, bias = (tensors[f"head.{part}"].astype(np.float32) for part in ("weight", "bias"))
    head = HeadWeights(weight, bias)
    header = Header("bench", "bench", bytes(16), bytes(8), 0, 0.0, clock_trusted=True)

    def answer(given: Answer) -> dict[str, float]:
        logits = head.apply(given.features)[0]
        return {"answer": float(logits.argmax()), "logit": float(logits.max())}

    def message(values: dict[str, float]) -> bytes:
        return encode(header, IntervalResult(spec.name, "bench", 0.0, spec.interval_s, 1.0, values))

    last: list[tuple[str, Step]] = [("head", answer), ("encode", message)]
    if not isinstance(spec.input, ImageInput):
        return [("infer", lambda query: runner.infer(pool[query % POOL])), *last]
    cv2, preprocess = opencv(), Preprocess(spec.input)
    frames = [cv2.resize(image, CAMERA[::-1]) for image in _simulated(spec, POOL)]
    jpegs = [cv2.imencode(".jpg", frame)[1] for frame in frames]
    return [
        ("decode", lambda query: cv2.imdecode(jpegs[query % POOL], cv2.IMREAD_COLOR)),
        ("preprocess", lambda frame: preprocess.batch(preprocess.raw(frame[:, :, ::-1])[None])),
        ("infer", runner.infer),
        *last,
    ]


def _subject(
    name: str,
    model: bytes,
    weights: bytes,
    ran: dict[str, float],
    precision: str,
    threads: int,
    runner: str = "ort",
) -> Subject:
    return Subject(
        model=name,
        sha256=sha256(model).hexdigest(),
        weights_sha256=sha256(weights).hexdigest() if weights else "",
        runner=runner,
        providers=ran,
        precision=precision,
        threads=threads,
        board=_board(),
        software=f"onnxruntime {version('onnxruntime')}, python {platform.python_version()}, {platform.machine()}",
        cores=os.cpu_count() or 0,
    )


def _board(root: Path = Path("/")) -> str:
    """The board's or the processor's own name for itself."""
    try:
        return (root / "proc/device-tree/model").read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        pass
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, f"{platform.system()} {platform.machine()}")
