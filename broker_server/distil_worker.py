"""The process that distils: ``python -m broker_server.distil_worker JOB_DIR``.

Owns reading the job, the order of the steps, and the files it leaves (see `distil_job`); the learning is `distiller`'s.
Progress goes to standard output as one JSON object a line; exit code 0, or 1 with `error.json`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from broker_server.distil_job import DistilJob, DistilResult, Failure, Scores, read_job
from broker_server.distiller import (
    anchor_lesson,
    constant,
    cycled,
    inputs_of,
    score,
    shared_opinion,
    teacher_lesson,
    train,
)
from broker_server.proxy_set import Asked, build, load_samples, mingle
from broker_server.strategies import HiddenAnchors, Strategy, make_strategy
from broker_server.strategies.base import F4, check_report
from broker_server.training import Lesson, Training, compute_device
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
    folder: Path
    spec: TaskSpec
    asked: Asked
    validation: Samples
    current: Mapping[Tier, Student]


def run_job(job_dir: Path, say: Say) -> DistilResult:
    """Carry out a job and write its files; `result.json` comes last.

    Raises:
        RoadcastError: it cannot be done; nothing but candidate files is left behind.
    """
    (job_dir / "error.json").unlink(missing_ok=True)
    bench = open_bench(job_dir)
    x, valid = inputs_of(bench.asked.samples, bench.spec), inputs_of(bench.validation, bench.spec)
    strategy, refused = _collect(bench, x) if bench.current else (None, {})
    lessons = _lessons(bench, strategy, x)
    metrics: dict[Tier, dict[str, Scores]] = {}
    parameters: dict[Tier, int] = {}
    for tier in TIERS:
        training = _teach(tier, bench, lessons, say)
        candidate = training.average.cpu()
        artifact = _export(job_dir.parent / "templates", candidate, bench.spec, tier, x[:EXPORT_BATCH].numpy())
        _leave(job_dir / "candidate" / tier, candidate, artifact)
        if strategy is not None:
            _save(job_dir / "candidate" / tier / "training.safetensors", training.tensors())
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
        teacher=_teacher_facts(strategy),
        devices=refused,
        parameters=parameters,
    )
    _write(job_dir / "result.json", msgspec.json.encode(result))
    return result


def open_bench(folder: Path) -> Bench:
    """Load what the job in a folder names.

    Raises:
        RoadcastError: a pack, the task or a current student cannot be read.
    """
    job = read_job(folder)
    spec = load_task(job.task)
    anchors, proxies, validation = (load_samples(path, spec) for path in (job.anchors, job.proxies, job.validation))
    for path, samples in ((job.anchors, anchors), (job.validation, validation)):
        if not samples.labelled.any():
            raise DistillationError(
                f"{path}: none of {len(samples)} samples is labelled; anchors and validation must be"
            )
    asked = mingle(proxies, anchors, share=job.settings.trust_share, salt=bytes.fromhex(job.salt))
    if job.proxy and sha256(build(asked.samples)).hexdigest() != job.proxy:
        raise DistillationError(f"{job.proxies}: changed since round {job.round} was called; restore it or call anew")
    current = (
        {tier: _load(Path(job.current) / f"{tier}.safetensors", spec, tier) for tier in TIERS} if job.current else {}
    )
    return Bench(job, folder, spec, asked, validation.take(validation.labelled), current)


def _collect(bench: Bench, x: Tensor) -> tuple[Strategy, dict[str, str]]:
    """Hear the shared model and every device; return the strategy, and why reports were refused."""
    asked, shared = bench.asked, shared_opinion(bench.current.values(), x, bench.spec)
    hidden = HiddenAnchors(asked.hidden, asked.samples.targets[asked.hidden]) if len(asked.hidden) else None
    strategy, refused = make_strategy(bench.job.settings, shared, hidden), {}
    for name in bench.job.reports:
        device = DeviceId(Path(name).stem)
        try:
            report = msgspec.msgpack.decode((bench.folder / "reports" / name).read_bytes(), type=KnowledgeReport)
            check_report(report, bench.spec, bench.job.proxy, len(asked.samples))
        except (RemoteProtocolError, msgspec.MsgspecError) as error:
            refused[str(device)] = str(error)
        else:
            strategy.add(device, report.votes, bench.job.round - report.round)
    return strategy, refused


def _teacher_facts(strategy: Strategy | None) -> Scores:
    """How many reports the teacher was made of, and what share each device got."""
    if strategy is None:
        return {"reports": 0.0}
    return {"reports": float(len(strategy))} | {f"share/{device}": share for device, share in strategy.trust().items()}


def _lessons(bench: Bench, strategy: Strategy | None, x: Tensor) -> list[Lesson]:
    """What every tier is taught: the teacher's opinion beside the anchors; the anchors alone for the first release."""
    plan, asked = bench.job.settings, bench.asked
    if strategy is None:
        return [anchor_lesson(asked.anchors, bench.spec, weight=1.0, batch=plan.batch)]
    rows = torch.from_numpy(asked.proxies)
    teacher = strategy.teacher().take(asked.proxies)
    return [
        teacher_lesson(x[rows], teacher, temperature=plan.temperature, batch=plan.batch),
        anchor_lesson(asked.anchors, bench.spec, weight=plan.anchor_weight, batch=max(1, plan.batch // 2)),
    ]


def _teach(tier: Tier, bench: Bench, lessons: Sequence[Lesson], say: Say) -> Training:
    """Train a tier from where its last round, or a killed worker, left it."""
    plan, first = bench.job.settings, not bench.current
    settings = msgspec.structs.replace(plan, seed=plan.seed + bench.job.round)  # each round in another order
    steps = plan.first_steps if first else plan.steps
    pace = cycled(plan.first_learning_rate, steps) if first else constant(plan.learning_rate)
    checkpoint = bench.folder / "checkpoint" / f"{tier}.safetensors"
    training, done = _resumed(checkpoint, bench, tier, compute_device(plan.device))

    def progress(taken: int, loss: float) -> None:
        say({"stage": "train", "tier": tier, "step": taken, "steps": steps, "loss": round(loss, 5)})
        _save(checkpoint, training.tensors() | {"done": torch.tensor(taken)})

    train(training, lessons, settings, steps, pace, done=done, progress=progress)
    return training


def _resumed(checkpoint: Path, bench: Bench, tier: Tier, device: torch.device) -> tuple[Training, int]:
    """The training to go on with, and how many steps of this round it has behind it."""
    if checkpoint.exists():
        try:
            tensors = _tensors(checkpoint)
            return Training.restored(tensors, bench.spec, tier, device), int(tensors["done"])
        except (DistillationError, KeyError):
            checkpoint.unlink()  # a power cut left half of it: this round's steps are taken again
    if not bench.current or bench.job.current is None:
        return Training(build_student(bench.spec, tier, bench.job.settings.seed), bench.spec, device), 0
    kept = Path(bench.job.current) / f"{tier}.training.safetensors"
    if kept.exists():
        return Training.restored(_tensors(kept), bench.spec, tier, device), 0
    return Training(bench.current[tier], bench.spec, device), 0


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


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DistillationError(
            f"{path}: cannot be read: {error}; remove it, and training begins with a fresh optimiser"
        ) from error


def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, save(dict(tensors)))


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
