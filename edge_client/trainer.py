"""The training subprocess: ``python -m edge_client.trainer JOB_DIR``; the only part of a device that loads torch.

It may be killed at any moment and owns nothing but its folder. Two heads are fitted on the trunk's features of the same
samples: the personal one serves this device, the report one teaches others (ADR-0006). What the device says about the
proxy set carries how familiar each sample is to it (Lee et al. 2018).
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from devices.preprocess import Preprocess
from devices.runners.base import Runner
from devices.runners.ort_runner import OrtRunner
from edge_client.disk import write_atomic
from edge_client.installed import HeadChoice
from edge_client.jobs import TrainJob, TrainResult, read_job
from edge_client.replay import read_samples
from edge_models.density import Density
from edge_models.head_weights import HeadWeights
from edge_models.samples import F4, Samples
from edge_protocol.errors import DataError, IncompatibleError, RoadcastError
from edge_protocol.task import ImageInput, TaskSpec

BATCH = 64
_PR_SET_PDEATHSIG = 1
MAX_LOG_SPREAD = 5.0
"""A spread is told as between e^-5 and e^5 of the sensor's own: beyond it says nothing more."""


def main(arguments: list[str] | None = None) -> int:
    """Run the job in the folder that is named; 0 when ``result.json`` is written, 1 with the reason on stderr."""
    folder = Path((sys.argv[1:] if arguments is None else arguments)[0])
    try:
        job = read_job(folder)
        limit_this_process(job.nice, job.memory_mb)
        run_job(folder)
    except RoadcastError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def limit_this_process(nice: int, memory_mb: int) -> None:
    """Stand back behind the agent: low priority, little memory, first to go when memory runs out, gone when it goes."""
    os.nice(nice)
    size = memory_mb << 20
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    with suppress(OSError, AttributeError):
        Path("/proc/self/oom_score_adj").write_text("900", encoding="ascii")
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def run_job(folder: Path) -> TrainResult:
    """Fit the heads, answer the proxy set, and write what came of it.

    Raises:
        RoadcastError: a file is missing, damaged or of another task.
    """
    from edge_models.fit import FitSettings, fit_personal_head, fit_report_head  # noqa: PLC0415 - loads torch

    job = read_job(folder)
    spec, weights = job.spec, Path(job.weights).read_bytes()
    shared = shared_head(weights)
    samples = thinned(read_samples(Path(job.replay), spec), job.max_samples)
    targets = cast("F4", samples.targets)  # or int64: what a task's kind has
    settings = FitSettings(epochs=job.epochs, seed=job.seed)
    with OrtRunner(Path(job.template).read_bytes(), weights) as runner:
        features = features_of(runner, job, samples.raw)
        fit = fit_personal_head(features, samples.side, targets, shared, spec, settings, scale=samples.scale)
        write_atomic(folder / "personal.safetensors", fit.head.to_bytes())
        if job.proxy is not None:
            report = fit_report_head(features, targets, shared, spec, settings)
            asked = features_of(runner, job, proxy_raw(Path(job.proxy), spec))
            votes = answers(spec, report.apply(asked), familiarity(features, samples, asked))
            write_atomic(folder / "votes.safetensors", save(votes))
    choice = HeadChoice(
        chosen=fit.chosen, shared=fit.shared, personal=fit.personal, n_train=fit.n_train, n_valid=fit.n_valid
    )
    result = TrainResult(choice=choice, examples=int(samples.labelled.sum()), held=held_classes(spec, samples))
    write_atomic(folder / "result.json", msgspec.json.encode(result))
    return result


def thinned(samples: Samples, most: int) -> Samples:
    """At most so many samples, spread evenly over time."""
    if len(samples) <= most:
        return samples
    return samples.take(np.linspace(0, len(samples) - 1, most).astype(np.int64))


def shared_head(weights: bytes) -> HeadWeights:
    """The shared head of a release, out of its weights payload.

    Raises:
        IncompatibleError: the payload holds none.
    """
    try:
        tensors = load(weights)
        return HeadWeights(tensors["head.weight"].astype(np.float32), tensors["head.bias"].astype(np.float32))
    except (KeyError, SafetensorError) as error:
        raise IncompatibleError(f"weights payload holds no shared head: {error}") from error


def features_of(runner: Runner, job: TrainJob, raw: npt.NDArray[np.generic]) -> F4:
    """Features (N, 64) float32 of stored samples, through the device's own preprocessing."""
    prepare = _preparation(job)
    parts = [runner.infer(prepare(raw[at : at + BATCH])).features for at in range(0, len(raw), BATCH)]
    return np.concatenate(parts) if parts else np.zeros((0, 64), np.float32)


def proxy_raw(path: Path, spec: TaskSpec) -> npt.NDArray[np.generic]:
    """The raw samples of a proxy set: (N, *raw_shape).

    Raises:
        DataError: it is another task's, or no proxy set.
    """
    try:
        raw = load(path.read_bytes())["raw"]
    except (KeyError, SafetensorError, OSError) as error:
        raise DataError(f"proxy set {path.parent.name[:12]} cannot be read: {error}") from error
    if raw.shape[1:] != spec.input.raw_shape:
        raise DataError(f"proxy samples are {raw.shape[1:]}, task {spec.name!r} takes {spec.input.raw_shape}")
    return raw


def familiarity(features: F4, samples: Samples, asked: F4) -> F4:
    """In-distribution p-value of each proxy sample on this device, (N,) float32; 0 where nothing was ever seen."""
    if not len(features):
        return np.zeros(len(asked), np.float32)
    classes = samples.targets.astype(np.int64) if samples.targets.ndim == 1 else None
    return Density.fit(features, classes).p_value(asked)


def held_classes(spec: TaskSpec, samples: Samples) -> tuple[int, ...]:
    """1 for each class that the device has examples of."""
    return tuple(int((samples.targets == label).any()) for label in range(len(spec.labels)))


def answers(spec: TaskSpec, logits: F4, density: F4) -> dict[str, F4]:
    """Votes as arrays: ``probabilities`` (N, C), or ``mean`` and ``spread`` (N, H); and ``density`` (N,)."""
    if spec.kind == "classify":
        exps = np.exp(logits - logits.max(1, keepdims=True))
        return {"probabilities": exps / exps.sum(1, keepdims=True), "density": density}
    horizons = len(spec.horizons)
    spread = np.exp(logits[:, horizons:].clip(-MAX_LOG_SPREAD, MAX_LOG_SPREAD))
    return {"mean": np.ascontiguousarray(logits[:, :horizons]), "spread": spread, "density": density}


def _preparation(job: TrainJob) -> Callable[[npt.NDArray[Any]], F4]:
    """Stored samples to what the student takes: images are normalised, windows already are."""
    if isinstance(job.spec.input, ImageInput):
        return Preprocess(job.spec.input, job.preprocess).batch
    return lambda raw: np.ascontiguousarray(raw, np.float32)


if __name__ == "__main__":
    raise SystemExit(main())
