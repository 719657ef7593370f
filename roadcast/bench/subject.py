"""What ``roadcast bench run`` measures: an artifact's folder or an ONNX file, as the steps of a query."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from devices.latency.result import Subject
from devices.preprocess import Preprocess
from devices.runners.base import Runner
from devices.runners.onnx_file import OnnxFile, open_file
from devices.runners.ort_proof import providers_that_ran
from devices.runners.ort_providers import GpuRunner, Kind
from devices.runners.ort_runner import OrtRunner, open_student
from edge_models.tasks import plugin_of
from edge_protocol.errors import ConfigError, DataError, NotReadyError
from edge_protocol.task import ImageInput, TaskSpec
from export.folder import GOLDEN, TEMPLATE, WEIGHTS, Card, read_card, read_part
from export.golden import check_golden
from export.in_tensorrt import workshop_here
from roadcast.bench.job import Job
from roadcast.bench.way import Way, whole_way

POOL = 32
"""Queries with different inputs that a run goes round and round."""
_GPU: dict[str, Kind] = {"ort-cuda": "cuda", "ort-tensorrt": "tensorrt"}


@dataclass(frozen=True, eq=False)
class Measurable:
    """A loaded model.

    Attributes:
        subject: what it is and what it runs on.
        way: what a query goes through.
        load_ms: from files to a loaded model.
        close: frees it.
    """

    subject: Subject
    way: Way
    load_ms: float
    close: Callable[[], None]


def open_model(path: Path, job: Job) -> Measurable:
    """Load a model and prepare its queries.

    Args:
        path: a folder of ``roadcast export build``, or an ONNX file.
        job: how it is to be measured; the whole way, and every runner but ``ort``, are for a folder only.

    Raises:
        ConfigError: the whole way of an ONNX file or of more than one sample in a query, another runner for such a
            file, PyTorch for a variant.
        DataError: no such file or folder.
        DeploymentError: a GPU, or PyTorch, answers otherwise than the exporter.
        IncompatibleError: the files do not fit each other, or the model does not take such a batch.
        NotReadyError: the folder is no artifact, or the runner is not here.
        SourceError, StoreError, TransportError: as `whole_way` says.
    """
    if job.end_to_end and (job.plan.batch != 1 or not path.is_dir()):
        raise ConfigError("--end-to-end needs a folder of 'roadcast export build' and one sample in a query")
    if path.is_dir():
        return _student(path, job)
    if job.runner != "ort":
        needs = "whose card names the student that it builds, whose weights it takes and " if _in_torch(job) else ""
        raise ConfigError(
            f"--runner {job.runner} needs a folder of 'roadcast export build', {needs}whose golden answers judge it"
        )
    try:
        model = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror}; name an ONNX file, or a folder that 'export build' wrote"
        ) from error
    return _file(path, model, job.plan.batch, job.threads)


def _file(path: Path, model: bytes, batch: int, threads: int) -> Measurable:
    begun = time.perf_counter()
    loaded = OnnxFile(model, threads=threads)
    load_ms = (time.perf_counter() - begun) * 1e3
    rng = np.random.default_rng(0)
    pool = [loaded.inputs(batch, rng) for _ in range(POOL)]
    ran = providers_that_ran(lambda profile: open_file(model, threads=threads, profile=profile), pool[0])
    subject = _subject(path.name, model, b"", ran, "as in the file", threads)
    return Measurable(subject, Way.inference(lambda query: loaded.infer(pool[query % POOL])), load_ms, loaded.close)


def _student(folder: Path, job: Job) -> Measurable:
    card = read_card(folder)
    if _in_torch(job):
        _import_torch(job, card)  # which takes seconds and is no part of loading a model
    begun = time.perf_counter()
    template, weights = read_part(folder, TEMPLATE), read_part(folder, WEIGHTS)
    loaded, ran = _loaded(folder, template, weights, job, card)
    load_ms = (time.perf_counter() - begun) * 1e3
    raw = _simulated(card.task, POOL * job.plan.batch)
    pool = _queries(card.task, raw)
    name = f"{card.task.name} {card.tier} {card.task.students[card.tier]}"
    if not ran:
        ran = providers_that_ran(
            lambda profile: open_student(template, weights, threads=job.threads, profile=profile), {"input": pool[0]}
        )
    subject = _subject(name, template, weights, ran, card.precision, job.threads, job.runner)
    with ExitStack() as opening:
        opening.callback(loaded.close)
        way = Way.inference(lambda query: loaded.infer(pool[query % POOL]))
        if job.end_to_end:
            way = whole_way(card.task, loaded, weights, pool, raw, job)
            opening.callback(way.close)
        return Measurable(subject, way, load_ms, opening.pop_all().close)


def _loaded(folder: Path, template: bytes, weights: bytes, job: Job, card: Card) -> tuple[Runner, dict[str, float]]:
    """A runner, and the providers that ran where it knows them itself."""
    if job.runner == "trt":
        plan = workshop_here().open(template, weights, read_part(folder, GOLDEN))
        return plan, {plan.provider: 1.0}
    if _in_torch(job):
        from export.torch_runner import open_torch

        compiled = job.runner == "torch-compile"
        reference = open_torch(card.task, card.tier, weights, threads=job.threads, compiled=compiled)
        check_golden(reference, read_part(folder, GOLDEN))
        return reference, {reference.provider: 1.0}
    if job.runner in _GPU:
        gpu = GpuRunner(_GPU[job.runner], template, weights, shape=card.task.input.shape)
        check_golden(gpu, read_part(folder, GOLDEN))
        return gpu, gpu.shares
    return OrtRunner(template, weights, threads=job.threads), {}


def _in_torch(job: Job) -> bool:
    return job.runner in ("torch", "torch-compile")


def _import_torch(job: Job, card: Card) -> None:
    if card.precision != "fp32":
        raise ConfigError(f"--runner {job.runner}: PyTorch has no {card.precision} variant; name the folder above it")
    try:
        from export import torch_runner  # noqa: F401 - for `_loaded`
    except ModuleNotFoundError as error:
        raise NotReadyError(
            f"--runner {job.runner} needs {error.name}, which is not installed here; run: pip install 'roadcast[train]'"
        ) from error


def _queries(spec: TaskSpec, raw: Any) -> list[Any]:  # noqa: ANN401 - as `_simulated` gives it
    if isinstance(spec.input, ImageInput):
        raw = Preprocess(spec.input).batch(raw)
    return list(raw.astype(np.float32).reshape(POOL, -1, *spec.input.shape))


def _simulated(spec: TaskSpec, count: int) -> Any:  # noqa: ANN401 - uint8 images or float32 windows
    raw = plugin_of(spec).simulate(spec, np.random.default_rng(0), count).raw
    return np.resize(raw, (count, *spec.input.raw_shape))


def _subject(
    name: str,
    model: bytes,
    weights: bytes,
    ran: dict[str, float],
    precision: str,
    threads: int,
    runner: str = "ort",
) -> Subject:
    library = "torch" if runner.startswith("torch") else "onnxruntime"
    return Subject(
        model=name,
        sha256=sha256(model).hexdigest(),
        weights_sha256=sha256(weights).hexdigest() if weights else "",
        runner=runner,
        providers=ran,
        precision=precision,
        threads=threads,
        board=_board(),
        software=f"{library} {version(library)}, python {platform.python_version()}, {platform.machine()}",
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
