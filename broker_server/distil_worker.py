"""The process that distils: ``python -m broker_server.distil_worker JOB_DIR``.

Owns reading the job, the order of the steps, and the files it leaves (see `distil_job`); the learning is `distiller`'s.
Progress goes to standard output as one JSON object a line; exit code 0, or 1 with `error.json`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from broker_server.distil_job import DistilJob, DistilResult, Failure, Scores, read_job
from broker_server.distiller import (
    answer,
    distil,
    first_student,
    inputs_of,
    opinion_of_logits,
    score,
    teacher_lesson,
)
from broker_server.proxy_set import build, load_samples
from broker_server.strategies import Strategy, make_strategy
from broker_server.strategies.base import F4, Fusion, check_report
from edge_models.samples import Samples
from edge_models.students import Student, build_student
from edge_models.tasks import load_task, plugin_of
from edge_protocol.errors import DistillationError, RemoteProtocolError, RoadcastError
from edge_protocol.ids import DeviceId
from edge_protocol.messages import KnowledgeReport
from edge_protocol.task import TIERS, TaskSpec, Tier
from export import BuiltArtifact, build_artifact

EXPORT_BATCH = 8
Say = Callable[[Mapping[str, object]], None]


@dataclass(frozen=True, eq=False)
class Bench:
    """What every step of a job needs: the task, its samples, and the students that are current (none at first)."""

    job: DistilJob
    spec: TaskSpec
    anchors: Samples
    proxies: Samples
    validation: Samples
    current: Mapping[Tier, Student]


def run_job(job_dir: Path, say: Say) -> DistilResult:
    """Carry out a job and write its files; `result.json` comes last.

    Raises:
        RoadcastError: it cannot be done; nothing but candidate files is left behind.
    """
    (job_dir / "error.json").unlink(missing_ok=True)
    bench = open_bench(read_job(job_dir))
    x, valid = inputs_of(bench.proxies, bench.spec), inputs_of(bench.validation, bench.spec)
    strategy, refused = _collect(job_dir, bench, x) if bench.current else (None, {})
    metrics: dict[Tier, dict[str, Scores]] = {}
    parameters: dict[Tier, int] = {}
    for tier in TIERS:
        candidate = _teach(tier, bench, strategy, x, say)
        artifact = _export(job_dir.parent / "templates", candidate, bench.spec, tier, x[:EXPORT_BATCH].numpy())
        _leave(job_dir / "candidate" / tier, candidate, artifact)
        parameters[tier] = artifact.parameters
        both = {"current": bench.current.get(tier), "candidate": candidate}
        metrics[tier] = {
            which: score(student, valid, bench.validation, bench.spec) for which, student in both.items() if student
        }
        say({"stage": "scored", "tier": tier, **metrics[tier]})
    plugin = plugin_of(bench.spec)
    result = DistilResult(
        headline=plugin.headline,
        higher_is_better=plugin.higher_is_better,
        metrics=metrics,
        teacher={"reports": float(len(strategy) if strategy else 0)},
        devices=refused,
        parameters=parameters,
    )
    _write(job_dir / "result.json", msgspec.json.encode(result))
    return result


def open_bench(job: DistilJob) -> Bench:
    """Load what a job names.

    Raises:
        RoadcastError: a pack, the task or a current student cannot be read.
    """
    spec = load_task(job.task)
    anchors, proxies, validation = (load_samples(path, spec) for path in (job.anchors, job.proxies, job.validation))
    for path, samples in ((job.anchors, anchors), (job.validation, validation)):
        if not samples.labelled.any():
            raise DistillationError(
                f"{path}: none of {len(samples)} samples is labelled; anchors and validation must be"
            )
    if job.proxy and sha256(build(proxies)).hexdigest() != job.proxy:
        raise DistillationError(f"{job.proxies}: changed since round {job.round} was called; restore it or call anew")
    current = (
        {tier: _load(Path(job.current) / f"{tier}.safetensors", spec, tier) for tier in TIERS} if job.current else {}
    )
    return Bench(job, spec, anchors, proxies, validation.take(validation.labelled), current)


def _collect(job_dir: Path, bench: Bench, x: Tensor) -> tuple[Strategy, dict[str, str]]:
    """Hear the shared model and every device; return the strategy, and why reports were refused."""
    shared = Fusion()
    for student in bench.current.values():
        shared.add(opinion_of_logits(answer(student, x)[1], bench.spec), 1.0)
    strategy, refused = make_strategy(bench.job.settings, shared.result()), {}
    for name in bench.job.reports:
        device = DeviceId(Path(name).stem)
        try:
            report = msgspec.msgpack.decode((job_dir / "reports" / name).read_bytes(), type=KnowledgeReport)
            check_report(report, bench.spec, bench.job.proxy, len(bench.proxies))
        except (RemoteProtocolError, msgspec.MsgspecError) as error:
            refused[str(device)] = str(error)
        else:
            strategy.add(device, report.votes, bench.job.round - report.round)
    return strategy, refused


def _teach(tier: Tier, bench: Bench, strategy: Strategy | None, x: Tensor, say: Say) -> Student:
    plan = bench.job.settings
    settings = msgspec.structs.replace(plan, seed=plan.seed + bench.job.round)  # each round in another order

    def progress(epoch: int, epochs: int, loss: float) -> None:
        say({"stage": "train", "tier": tier, "epoch": epoch, "epochs": epochs, "loss": round(loss, 5)})

    if strategy is None:
        return first_student(bench.spec, tier, bench.anchors, settings, progress)
    lesson = teacher_lesson(x, strategy.teacher(), settings.temperature)
    return distil(bench.current[tier], lesson, bench.anchors, bench.spec, settings, progress)


def _export(cache: Path, student: Student, spec: TaskSpec, tier: Tier, x: F4) -> BuiltArtifact:
    """Build a candidate's artifact; a template is the same for every release, so it is traced once and kept."""
    kept = cache / f"{spec.label_space}-{spec.students[tier]}-torch{torch.__version__}.onnx"
    if kept.exists():
        try:
            return build_artifact(spec, tier, student, x, template=kept.read_bytes())
        except RoadcastError:
            kept.unlink()  # traced by another version of the student: trace again
    artifact = build_artifact(spec, tier, student, x)
    cache.mkdir(parents=True, exist_ok=True)
    _write(kept, artifact.template)
    return artifact


def _leave(folder: Path, student: Student, artifact: BuiltArtifact) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in student.state_dict().items()}, folder / "state.safetensors")
    _write(folder / "template.onnx", artifact.template)
    _write(folder / "weights.safetensors", artifact.weights)
    _write(folder / "golden.safetensors", artifact.golden)


def _load(path: Path, spec: TaskSpec, tier: Tier) -> Student:
    student = build_student(spec, tier)
    try:
        student.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise DistillationError(f"{path}: not the weights of {spec.students[tier]!r}: {error}") from error
    return student.eval()


def _write(path: Path, data: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(data)
    partial.replace(path)


def _print(event: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def main(arguments: list[str], say: Say = _print) -> int:
    """Run the job in the folder named by the only argument; return the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m broker_server.distil_worker JOB_DIR\n")
        return 2
    job_dir = Path(arguments[0])
    try:
        torch.set_num_threads(read_job(job_dir).settings.threads)
        run_job(job_dir, say)
    except (RoadcastError, OSError, MemoryError, RuntimeError) as error:
        failure = Failure(type(error).__name__, str(error))
        say({"stage": "failed", "kind": failure.kind, "message": failure.message})
        if job_dir.is_dir():
            _write(job_dir / "error.json", msgspec.json.encode(failure))
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
