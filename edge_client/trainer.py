"""The training subprocess: ``python -m edge_client.trainer JOB_DIR``; the only part of a device that loads torch.

It may be killed at any moment and owns nothing but its folder. Two heads are fitted on the trunk's features of the same
samples: the personal one serves this device, the report one teaches others (ADR-0006): classifiers say how much
likelier a proxy is among their own samples (ADR-0008), forecasters what they expect.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec
import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from edge_client.costs import Meter, board_watts
from edge_client.disk import write_atomic
from edge_client.hard_examples import hardest
from edge_client.installed import HeadChoice
from edge_client.jobs import TrainResult, proxy_raw, read_job, shared_head
from edge_client.stored import labelled_parts
from edge_client.training_set import TrainingSet
from edge_client.trunk import BATCH, Trunk, preparation
from edge_models.head_weights import HeadWeights
from edge_models.privacy import held_classes
from edge_models.private_odds import Background, answer, noisy_totals
from edge_models.prototypes import class_prototypes
from edge_models.samples import F4, Samples
from edge_models.thinning import evenly
from edge_protocol.errors import DataError, RoadcastError
from edge_protocol.task import TaskSpec

if TYPE_CHECKING:
    from edge_models.fit import PersonalFit
    from edge_models.head_fits import FitSettings, Tick

_PR_SET_PDEATHSIG = 1
_NO_MEMORY = re.compile(r"bad_alloc|bad allocation|allocate memory")
"""In what ONNX Runtime and torch say when they are refused memory."""
OWN_VIEWS, PROXY_VIEWS = 8, 4
"""How often each own sample, and each proxy, is seen by the head that answers a round."""
MAX_OWN = 1000
"""Own samples that the head is fitted on at most, chosen as a job's are."""
LEAST_EXAMPLES = 3
"""A device does not speak of a class of which it has fewer examples: k-anonymity, and so few tell nothing."""
MAX_LOG_SPREAD = 5.0
"""A spread is told as between e^-5 and e^5 of the sensor's own: beyond it says nothing more."""


def main(arguments: list[str] | None = None) -> int:
    """Run the job in the folder that is named; 0 when ``result.json`` is written, 1 with the reason on stderr."""
    folder = Path((sys.argv[1:] if arguments is None else arguments)[0])
    memory_mb = 0
    try:
        job = read_job(folder)
        memory_mb = job.memory_mb
        limit_this_process(job.nice, memory_mb)
        run_job(folder)
    except Exception as error:
        if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
            less = "lower train.max_samples or replay.budget_bytes"
            sys.stderr.write(f"training needs more memory than {memory_mb} MB: raise train.memory_mb, or {less}\n")
        elif isinstance(error, RoadcastError):
            sys.stderr.write(f"{error}\n")
        else:
            raise
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
    from edge_models.fit import fit_personal_head  # noqa: PLC0415 - loads torch
    from edge_models.head_fits import FitSettings, MlpSettings  # noqa: PLC0415 - loads torch

    job = read_job(folder)
    spec, weights = job.spec, Path(job.weights).read_bytes()
    shared = shared_head(weights)
    settings = FitSettings(heads=job.heads, epochs=job.epochs, mlp=MlpSettings(seed=job.seed), seed=job.seed)
    meter = Meter()
    with Trunk(job, weights) as trunk:
        known = TrainingSet.read(job, trunk.features)
        samples, features = known.samples, known.features
        held, examples = spoken_of(spec, samples), int(samples.labelled.sum())
        targets = cast("F4", samples.targets)  # or int64: what a task's kind has
        fit = fit_personal_head(
            features, known.own, targets, shared, spec, settings, scale=samples.scale, tick=meter.tick
        )
        write_atomic(folder / "personal.safetensors", fit.head.to_bytes())
        if job.proxy is not None:
            asked = proxy_raw(Path(job.proxy), spec)
            if job.sigma:
                parts = labelled_parts(Path(job.replay), spec, BATCH)
                votes, held, examples = private_answers(trunk, parts, asked, shared, job.sigma)
            elif spec.kind == "classify":
                votes = class_answers(trunk, samples, asked, held, meter.tick)
            else:
                votes = forecast_answers(trunk, samples, features, asked, shared, settings, meter.tick)
            write_atomic(folder / "votes.safetensors", save(votes))
    if job.prototype_k is not None:
        write_atomic(folder / "prototypes.safetensors", save(class_means(spec, samples, features, job.prototype_k)))
    no_trunk = ""
    if job.trunk is not None:
        from edge_client.trunk_lesson import leave_change  # noqa: PLC0415 - loads torch

        no_trunk = leave_change(folder, job, weights, samples, preparation(job), meter.tick)
    cost = meter.cost(board_watts() if job.watts is None else job.watts, time.process_time())
    hard = hardest(known.names, samples, features, (fit.head, shared), spec)
    choice, left_out = _choice(fit), known.left_out
    result = TrainResult(
        choice=choice, examples=examples, held=held, cost=cost, hard=hard, no_trunk=no_trunk, left_out=left_out
    )
    write_atomic(folder / "result.json", msgspec.json.encode(result))
    return result


def class_answers(
    trunk: Trunk, samples: Samples, asked: npt.NDArray[np.generic], held: tuple[int, ...], tick: Tick
) -> dict[str, F4]:
    """Answer the proxies by how much likelier they are among the device's own samples: ``odds`` (N, C) float32."""
    from edge_models.ratio_head import own_odds  # noqa: PLC0415 - loads torch

    known = samples.take(np.isin(samples.targets, np.flatnonzero(held)))
    known = known.take(evenly(known.targets.astype(np.int64), MAX_OWN))
    if not len(known):
        return {"odds": np.zeros((len(asked), len(held)), np.float32)}
    own, theirs = trunk.views(known.raw, OWN_VIEWS), trunk.views(asked, PROXY_VIEWS)
    return {"odds": own_odds(own, known.targets.astype(np.int64), theirs, len(held), seed=trunk.seed, tick=tick)}


def private_answers(
    trunk: Trunk, parts: Iterable[Samples], asked: npt.NDArray[np.generic], shared: HeadWeights, sigma: float
) -> tuple[dict[str, F4], tuple[int, ...], int]:
    """Answer the proxies out of noisy totals over all labelled samples: odds, classes held, examples, all noisy.

    No sample is left out but by its own doing: to thin them out would let one decide about others. They come in
    `parts`, so that their number does not decide either, by the memory that they take.
    """
    views = trunk.views(asked, PROXY_VIEWS)
    background = Background.of(views[0], shared.apply(views[0]).argmax(1), len(trunk.spec.labels))
    own = ((trunk.features(part.raw), part.targets.astype(np.int64)) for part in parts)
    totals = noisy_totals(background, own, sigma)
    told = answer(background, totals, views, sigma=sigma, k=LEAST_EXAMPLES)
    return {"odds": told.odds}, tuple(told.held.tolist()), told.examples


def forecast_answers(
    trunk: Trunk,
    samples: Samples,
    features: F4,
    asked: npt.NDArray[np.generic],
    shared: HeadWeights,
    settings: FitSettings,
    tick: Tick,
) -> dict[str, F4]:
    """Answer the proxies with a head fitted for it: ``mean`` and ``spread`` (N, H) float32."""
    from edge_models.fit import fit_report_head  # noqa: PLC0415 - loads torch

    head = fit_report_head(features, cast("F4", samples.targets), shared, settings, tick)
    mean, log_spread = np.split(head.apply(trunk.features(asked)), 2, axis=1)
    return {"mean": np.ascontiguousarray(mean), "spread": np.exp(log_spread.clip(-MAX_LOG_SPREAD, MAX_LOG_SPREAD))}


def class_means(spec: TaskSpec, samples: Samples, features: F4, k: int) -> dict[str, npt.NDArray[np.generic]]:
    """Mean features of classes with k samples or more: ``means`` (C, 64) float32; ``counts`` (C,) int64, 0 for others.

    Raises:
        DataError: a forecaster has no classes.
    """
    if spec.kind != "classify":
        raise DataError(f"task {spec.name!r} forecasts: it has no class means to tell")
    labels, classes = samples.targets.astype(np.int64), len(spec.labels)
    found = class_prototypes(features, labels, classes, k=k)
    counts = np.bincount(labels[(labels >= 0) & (labels < classes)], minlength=classes) * found.held
    return {"means": found.means, "counts": counts.astype(np.int64)}


def spoken_of(spec: TaskSpec, samples: Samples) -> tuple[int, ...]:
    """1 for each class that the device has enough examples of to speak about it; empty for forecasts."""
    if spec.kind == "forecast":
        return ()
    return tuple(held_classes(samples.targets.astype(np.int64), len(spec.labels), LEAST_EXAMPLES).tolist())


def _choice(fit: PersonalFit) -> HeadChoice:
    return HeadChoice(
        chosen=fit.chosen,
        shared=fit.shared,
        personal=fit.personal,
        n_train=fit.n_train,
        n_valid=fit.n_valid,
        head=fit.kind,
        tried={kind: dict(scores) for kind, scores in fit.tried.items()},
    )


if __name__ == "__main__":
    raise SystemExit(main())
